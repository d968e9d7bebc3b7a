"""The pages `/` (what this server holds, what to do next) and `/docs` (every path). Nothing comes from elsewhere."""

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
_POLICY = (
    "default-src 'none'; style-src 'self'{style}; script-src 'self'; connect-src 'self'; img-src 'self' data:{images}; "
    "form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
)
# The page shows heat maps as data URLs, and files that are not stored yet as blobs.
PAGE_POLICY = _POLICY.format(style="", images=" blob:", forms="'none'")
# Swagger UI sets style attributes and shows images that it carries as data URLs.
DOCS_POLICY = _POLICY.format(style=" 'unsafe-inline'", images="", forms="'self'")


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
