"""All images on a plane, by mouse and by keyboard."""

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import Api, Inspect


def test_the_strangest_is_stepped_to_and_opened(page: Page, api: Api, weave: str, inspect: Inspect) -> None:
    page.goto(f"/#/c/{weave}/map")
    plane = page.get_by_role("application", name=re.compile("Map of 50 images"))
    expect(plane.locator(".point img")).to_have_count(50)
    plane.focus()
    plane.press("ArrowRight")
    strangest = api.get(f"/v1/collections/{weave}/map").json()["images"][0]["metadata"]["filename"]
    expect(page.locator("#map-words")).to_contain_text(strangest)
    inspect(page, "map")
    plane.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("heading", name=strangest)).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_label("Laid out by").select_option("neighbours")
    expect(page.get_by_text("sizes of groups and gaps between them mean nothing")).to_be_visible()
    page.get_by_label("Show the images").uncheck()
    expect(plane.locator(".point img")).to_have_count(0)
    plane.locator(".point").first.click()
    expect(page.get_by_role("dialog").get_by_role("heading", name=strangest)).to_be_visible()
