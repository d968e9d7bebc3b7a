"""The page at `/`: what this server is, what it holds, and what to do next."""

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
POLICY = "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src 'self'"


@router.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """The start page."""
    text = (files("app") / "static" / "index.html").read_text().replace("{{version}}", version("oddity"))
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})
