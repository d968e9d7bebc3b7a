"""All images on a plane, by mouse and by keyboard."""

import math
import re

import pytest
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


def apart(page: Page) -> float:
    """Pixels between the middles of the first two points."""
    boxes = [page.locator(".point").nth(number).bounding_box() for number in (0, 1)]
    (x, y), (u, v) = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes if box]
    return math.hypot(x - u, y - v)


def test_the_map_is_looked_at_closer_by_wheel_buttons_and_keys(page: Page, weave: str) -> None:
    page.goto(f"/#/c/{weave}/map")
    page.get_by_label("Show the images").uncheck()
    plane = page.get_by_role("application", name=re.compile("Map of 50 images"))
    expect(plane).to_be_visible()
    whole = apart(page)
    out = page.get_by_role("button", name="Zoom out")
    expect(out).to_be_disabled()
    page.get_by_role("button", name="Zoom in").click()
    assert apart(page) == pytest.approx(1.6 * whole, rel=0.01)
    out.click()
    assert apart(page) == pytest.approx(whole, rel=0.01)
    plane.focus()
    plane.press("+")
    plane.press("Shift+ArrowRight")
    expect(page.get_by_role("button", name="Show everything")).to_be_enabled()
    plane.press("0")
    expect(out).to_be_disabled()
    # The wheel keeps what lies under the pointer where it is.
    first = page.locator(".point").first
    box = first.bounding_box()
    assert box is not None
    at = (box["x"] + 3, box["y"] + 5)
    page.mouse.move(*at)
    page.mouse.wheel(0, -600)
    expect(out).to_be_enabled()
    closer = first.bounding_box()
    assert closer is not None and (closer["x"], closer["y"]) == pytest.approx((box["x"], box["y"]), abs=30)
    assert apart(page) > 2 * whole
    # Dragging moves, and is no click.
    page.mouse.down()
    page.mouse.move(at[0] + 90, at[1] + 40, steps=3)
    page.mouse.up()
    moved = first.bounding_box()
    assert moved is not None and (moved["x"], moved["y"]) != (closer["x"], closer["y"])
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_two_fingers_zoom(page: Page, weave: str) -> None:
    page.goto(f"/#/c/{weave}/map")
    plane = page.get_by_role("application", name=re.compile("Map of 50 images"))
    expect(plane).to_be_visible()
    whole = apart(page)
    plane.evaluate(
        """frame => { const {left, top} = frame.getBoundingClientRect();
        const finger = (kind, id, x) => frame.dispatchEvent(new PointerEvent(kind, {pointerId: id, bubbles: true,
            pointerType: "touch", clientX: left + x, clientY: top + 200}));
        frame.setPointerCapture = () => {};  // there are no such fingers
        finger("pointerdown", 1, 300); finger("pointerdown", 2, 400);
        finger("pointermove", 1, 200); finger("pointermove", 2, 500);
        finger("pointerup", 1, 200); finger("pointerup", 2, 500); }"""
    )
    expect(page.get_by_role("button", name="Zoom out")).to_be_enabled()
    assert apart(page) == pytest.approx(3 * whole, rel=0.05)
