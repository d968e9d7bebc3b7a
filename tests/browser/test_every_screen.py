"""Every screen as it is first seen: of a collection that holds nothing yet, under the longest name there can be."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Api, Inspect
from tests.rules.source_tree import ROOT

SOURCE = ROOT / "app" / "static" / "page" / "collection.js"
NAME = "line-3_camera-12_after-the-oven_" + "n" * 96  # 128 characters, most of which nothing can break
SCREENS = ["images", "score", "threshold", "review", "search", "map", "classes", "duplicates", "scorers"]


def test_no_screen_is_forgotten() -> None:
    table = SOURCE.read_text(encoding="utf-8").partition("const SCREENS = {")[2].partition("};")[0]
    assert re.findall(r"^  (\w+): \[", table, re.MULTILINE) == SCREENS


@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_without_images_says_what_to_do(page: Page, api: Api, screen: str, inspect: Inspect) -> None:
    assert len(NAME) == 128
    description = "Everything that was sorted out by hand on the night shift, https://example.org/" + "w" * 80
    assert api.put(f"/v1/collections/{NAME}", json={"description": description}).status_code in (200, 201)
    page.goto(f"/#/c/{NAME}/{screen}")
    expect(page.get_by_role("heading", name=NAME)).to_be_visible()
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("status").filter(has_text=re.compile("…$"))).to_have_count(0)  # nothing is on its way
    inspect(page, f"empty-{screen}")


def test_long_names_of_files_stay_in_their_place(page: Page, api: Api, files: Path, inspect: Inspect) -> None:
    assert api.put("/v1/collections/long", json={}).status_code == 201
    data = next((files / "bank").iterdir()).read_bytes()
    name = "2026-11-21T03.14.15_camera-12_" + "x" * 160 + ".png"
    api.post("/v1/collections/long/images", files=[("files", (name, data, "image/png"))])
    image = api.get("/v1/collections/long/images").json()["images"][0]["id"]
    page.goto(f"/#/c/long/images?image={image}")
    expect(page.get_by_role("dialog").get_by_role("heading", name=name)).to_be_visible()
    inspect(page, "long-names")
