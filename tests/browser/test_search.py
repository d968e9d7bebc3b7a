"""What looks like this: by file, by example and counter-example, under conditions."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Inspect


def test_by_file_then_more_and_less_like_some(page: Page, weave: str, files: Path, inspect: Inspect) -> None:
    page.goto(f"/#/c/{weave}/search")
    page.get_by_label("What looks like this?: images").set_input_files([files / "damaged" / "weave-stain-0001.png"])
    found = page.get_by_role("button", name=re.compile("^Open weave"))
    expect(found).to_have_count(24)
    expect(found.first).to_have_accessible_name(re.compile("weave-stain"))  # it is stored, unlabelled
    page.get_by_role("button", name=re.compile("More like weave-stain")).click()
    more = page.get_by_role("group", name="More like")
    expect(more.get_by_role("img")).to_have_count(1)
    expect(page.get_by_role("button", name="Open weave-stain-0001.png")).to_have_count(0)
    nearest = found.first.get_attribute("aria-label")
    assert nearest is not None
    page.get_by_role("button", name=nearest.replace("Open", "Less like")).click()
    expect(page.get_by_role("group", name="Less like").get_by_role("img")).to_have_count(1)
    expect(page.get_by_role("button", name=nearest)).to_have_count(0)  # an example is no answer
    inspect(page, "search")


def test_under_a_condition(page: Page, weave: str, files: Path) -> None:
    page.goto(f"/#/c/{weave}/search")
    page.get_by_label("What looks like this?: images").set_input_files([next((files / "flawless").iterdir())])
    found = page.get_by_role("button", name=re.compile("^Open weave"))
    expect(found).to_have_count(24)
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Field").fill("$role")
    page.get_by_label("Value").fill("unlabelled")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(found).to_have_count(6)
    page.get_by_label("not", exact=True).check()
    page.get_by_role("button", name="Search", exact=True).click()
    expect(found).to_have_count(24)
    page.get_by_label("Value").fill("normal")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(found).to_have_count(6)
    page.get_by_label("Field").fill("no way")
    page.get_by_label("Value").fill("x")
    page.get_by_label("not", exact=True).uncheck()
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("No image fits")).to_be_visible()


def test_from_images_that_were_chosen(page: Page, weave: str) -> None:
    page.goto(f"/#/c/{weave}/images")
    page.get_by_label("Choose weave-0000.png").check()
    page.get_by_label("Choose weave-0001.png").check()
    expect(page.get_by_text("2 images chosen")).to_be_visible()
    page.get_by_role("button", name="More like these").click()
    expect(page.get_by_role("group", name="More like").get_by_role("img")).to_have_count(2)
    expect(page.get_by_role("button", name=re.compile("^Open weave"))).to_have_count(24)
