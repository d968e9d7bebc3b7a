"""The pages `/` (what this server holds, what to do next) and `/docs` (every path). Nothing comes from elsewhere."""

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

router = APIRouter(include_in_schema=False)
_POLICY = (
    "default-src 'none'; style-src 'self'{style}; script-src 'self'; connect-src 'self'; img-src 'self' data:{images}; "
    "form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
)
# The page shows heat maps as data URLs, and files that are not stored yet as blobs.
PAGE_POLICY = _POLICY.format(style="", images=" blob:", forms="'none'")
# Swagger UI sets style attributes and shows images that it carries as data URLs.
DOCS_POLICY = _POLICY.format(style=" 'unsafe-inline'", images="", forms="'self'")


class PageFiles(StaticFiles):
    """What the pages load. Browsers ask each time whether it is still the same: no page is half an older version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that it has not changed."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


@router.get("/", response_class=HTMLResponse)
async def start() -> HTMLResponse:
    """The start page."""
    return _page("index.html", PAGE_POLICY)


@router.get("/docs", response_class=HTMLResponse)
async def docs() -> HTMLResponse:
    """Every path with its parameters, from `/openapi.json`."""
    return _page("docs.html", DOCS_POLICY)


def _page(name: str, policy: str) -> HTMLResponse:
    text = (files("app") / "static" / name).read_text(encoding="utf-8").replace("{{version}}", version("oddity"))
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(text, headers=headers)
