"""The pages `/` (what this server holds, what to do next) and `/docs` (every path). Nothing comes from elsewhere."""

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
# Swagger UI sets style attributes and shows images that it carries as data URLs.
POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@router.get("/", response_class=HTMLResponse)
async def start() -> HTMLResponse:
    """The start page."""
    return _page("index.html")


@router.get("/docs", response_class=HTMLResponse)
async def docs() -> HTMLResponse:
    """Every path with its parameters, from `/openapi.json`."""
    return _page("docs.html")


def _page(name: str) -> HTMLResponse:
    text = (files("app") / "static" / name).read_text(encoding="utf-8").replace("{{version}}", version("oddity"))
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})
