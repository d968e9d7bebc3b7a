"""Generated pages are what their generator writes now."""

from pathlib import Path

from app.settings import settings_page
from models.catalog import installed
from models.method_pages import overview

DOCS = Path(__file__).parents[2] / "docs"


def test_settings_page_is_current() -> None:
    assert (DOCS / "settings.md").read_text() == settings_page(), "run `python -m app.settings > docs/settings.md`"


def test_the_page_of_methods_is_current() -> None:
    assert (DOCS / "methods.md").read_text() == overview(installed()), "run `python -m models.method_pages`"
