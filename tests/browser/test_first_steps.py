"""From an empty service to a verdict with its reasons, by mouse and by keyboard."""

import base64
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Api, Inspect


def test_a_newcomer_makes_a_collection_drops_a_folder_and_scores(
    page: Page, api: Api, files: Path, inspect: Inspect
) -> None:
    page.goto("/")
    page.get_by_label("Name").fill("line-3")
    page.get_by_label("False-alarm rate").fill("5")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("heading", name="line-3")).to_be_visible()
    expect(page.get_by_text("No images yet")).to_be_visible()
    page.get_by_label("Add images: a folder").set_input_files(files / "bank")
    expect(page.get_by_text("44 images added.")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Open weave-"))).to_have_count(44)
    assert api.get("/v1/collections/line-3").json()["false_alarm_rate"] == 0.05
    page.get_by_role("link", name="Score", exact=True).click()
    page.get_by_label("Does this belong?: images").set_input_files(
        [*(files / "damaged").glob("*-s*"), *sorted((files / "flawless").iterdir())[:2]]
    )
    results = page.get_by_role("listitem").filter(has_text="p =")
    expect(results).to_have_count(6)
    expect(results.first).to_contain_text("Anomalous")  # the strangest comes first
    expect(
        page.get_by_text(re.compile("[1-5] of 6 images (is|are) anomalous at a false-alarm rate of 4.4\\s%"))
    ).to_be_visible()
    expect(results.first.get_by_role("group", name="Nearest normal images").get_by_role("button")).to_have_count(3)
    assert api.get("/v1/collections/line-3").json()["images"] == 44  # scored, not stored


def test_images_are_dropped_and_what_is_no_image_is_left_out(page: Page, weave: str, files: Path) -> None:
    page.goto(f"/#/c/{weave}/score")
    data = base64.b64encode((files / "damaged" / "weave-stain-0001.png").read_bytes()).decode()
    dropped = page.evaluate_handle(
        """data => { const carried = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
        carried.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        carried.items.add(new File(["x"], "notes.txt", {type: "text/plain"})); return carried; }""",
        data,
    )
    zone = page.locator(".drop")
    zone.dispatch_event("dragover", {"dataTransfer": dropped})
    zone.dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.get_by_role("heading", name="dropped.png")).to_be_visible()
    expect(zone).to_contain_text("1 file left out: not an image by name.")


def test_a_file_that_is_no_image_is_refused_with_its_reason(page: Page, weave: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image at all")
    page.goto(f"/#/c/{weave}/score")
    page.get_by_label("Does this belong?: images").set_input_files([broken])
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("Not scored.")
    expect(refusal).to_contain_text("image")


def test_a_collection_that_is_not_there_says_so_and_leads_back(page: Page) -> None:
    page.goto("/#/c/nothing/images")
    expect(page.get_by_role("alert")).to_contain_text("There is no collection `nothing`")
    page.get_by_role("link", name="All collections").click()
    expect(page.get_by_role("heading", name="Collections", exact=True)).to_be_visible()


def test_collections_show_what_they_hold(page: Page, weave: str, inspect: Inspect) -> None:
    page.goto("/")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=weave))
    expect(card).to_contain_text("44 normal images · 6 unlabelled")
    expect(card.locator("img").first).to_have_js_property("complete", True)
    inspect(page, "collections")


def test_images_are_looked_at_one_by_one(page: Page, weave: str, inspect: Inspect) -> None:
    page.goto(f"/#/c/{weave}/images")
    page.get_by_label("Show").select_option("unlabelled")
    thumbs = page.get_by_role("button", name=re.compile("Open weave"))
    expect(thumbs).to_have_count(6)
    inspect(page, "images")
    page.get_by_role("button", name="Open weave-stain-0001.png").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="weave-stain-0001.png")).to_be_visible()
    expect(dialog).to_contain_text("Anomalous")
    expect(dialog.get_by_role("button", name=re.compile("Open weave"))).to_have_count(3)
    inspect(page, "image")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page).not_to_have_url(re.compile("image="))
    expect(thumbs).to_have_count(6)  # what was chosen still stands


def test_the_page_is_walked_by_keyboard_alone(page: Page, weave: str) -> None:
    page.goto(f"/#/c/{weave}/images")
    expect(page.get_by_role("heading", name=weave)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Images", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Does this belong?")).to_be_visible()


def test_the_theme_is_chosen_and_kept(page: Page, weave: str) -> None:
    page.goto("/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Use the dark theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    assert page.evaluate(ground) == dark
