"""Images that are there more than once: looked for, looked at, deleted."""

import io

from PIL import Image
from playwright.sync_api import Page, expect

from app.cli.demo_images import MadeImage
from tests.browser.conftest import Api, Inspect, make, send


def test_copies_are_found_told_apart_and_deleted(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], inspect: Inspect
) -> None:
    bank = weaves["bank"][:6]
    make(api, "copies", bank)
    send(api, "copies", bank[:1], items=[{"id": "the-same-file"}])
    packed = io.BytesIO()
    Image.open(io.BytesIO(bank[1].data)).save(packed, "PNG", compress_level=1)
    send(api, "copies", [MadeImage("packed.png", "flawless", packed.getvalue())])
    page.goto("/#/c/copies/duplicates")
    expect(page.get_by_text("Not looked for yet")).to_be_visible()
    page.get_by_role("button", name="Look for duplicates").click()
    same = page.get_by_role("region", name="The same file")
    expect(same.get_by_role("button", name="Open")).to_have_count(2)
    expect(page.get_by_role("region", name="The same pixels").get_by_role("button", name="Open")).to_have_count(2)
    inspect(page, "duplicates")
    page.once("dialog", lambda dialog: dialog.accept())
    same.get_by_role("button", name="Keep the first, delete the other").click()
    expect(same).to_contain_text("One is kept; 1 image deleted.")
    assert api.get("/v1/collections/copies").json()["images"] == 7
    page.reload()
    expect(page.get_by_text("2 sets, as of")).to_be_visible()  # what the last search found is still there
