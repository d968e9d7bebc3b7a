"""A service that asks for keys: the page asks for one, keeps it in its tab only, and shows pictures with it."""

from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pydantic import SecretStr

from app.cli.demo_images import MadeImage
from app.settings import Settings
from tests.browser.conftest import Inspect, make, serving

ADMIN = "the-first-key-of-a-deployment-that-nobody-guesses"


@pytest.fixture
def guarded(tmp_path: Path, weaves: dict[str, list[MadeImage]]):
    """Address of a service that asks everybody for a key, with a collection."""
    settings = Settings(
        data=tmp_path,
        weights="stand-in",
        image_size=64,
        threads=1,
        jobs="thread",
        access="keys",
        admin_key=SecretStr(ADMIN),
        log_level="warning",
    )
    with serving(settings) as address:
        with httpx2.Client(base_url=address, timeout=120, headers={"Authorization": f"Bearer {ADMIN}"}) as client:
            make(client, "kept", weaves["bank"][:12])
        yield address


def test_a_key_is_asked_for_used_for_pictures_too_and_forgotten_with_the_tab(
    page: Page, context: BrowserContext, guarded: str, inspect: Inspect
) -> None:
    page.goto(guarded)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This service asks for a key.")
    inspect(page, "key")
    dialog.get_by_role("textbox", name="Key").fill(ADMIN)
    dialog.get_by_role("button", name="Use this key").click()
    page.get_by_role("link", name="kept", exact=True).click()
    pictures = page.get_by_role("button", name="Open weave-0000.png").locator("img")
    expect(pictures).to_have_js_property("naturalWidth", 96)
    assert (pictures.get_attribute("src") or "").startswith("blob:")
    assert ADMIN not in page.url
    assert page.evaluate("Object.values(localStorage).concat(document.cookie).join()").find(ADMIN) == -1
    another = context.new_page()
    another.goto(guarded)
    expect(another.get_by_role("dialog")).to_contain_text("This service asks for a key.")
    another.get_by_role("textbox", name="Key").fill("wrong")
    another.get_by_role("button", name="Use this key").click()
    expect(another.get_by_role("alert").first).to_contain_text("key")
