"""Does this belong? With heat maps, as one set, and told where the answer was wrong."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from app.cli.demo_images import MadeImage
from tests.browser.conftest import Api, Inspect, fitted_method, make


def test_heat_maps_are_fitted_where_they_are_missed_and_shown_with_a_slider(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], files: Path, inspect: Inspect
) -> None:
    method = fitted_method(with_heat_maps=True)
    make(api, "heat", weaves["bank"])
    page.goto("/#/c/heat/score")
    page.get_by_label("Does this belong?: images").set_input_files(
        [files / "damaged" / "weave-stain-0001.png", files / "flawless" / "weave-0044.png"]
    )
    expect(page.get_by_text(f"A heat map needs {method}, fitted on this collection.")).to_be_visible()
    page.get_by_role("button", name=f"Fit {method} now").click()
    expect(page.get_by_text(f"Fitting {method}")).to_be_visible()
    slider = page.get_by_label("Heat map", exact=True)  # there as soon as the fit is done and the images scored again
    expect(slider).to_be_visible()
    stained = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="weave-stain-0001.png"))
    layer = stained.locator(".heat-layer")
    expect(layer).to_have_css("opacity", "0.8")
    slider.fill("0.2")
    expect(layer).to_have_css("opacity", "0.2")
    # The stain is hot and the flawless image is not, both on the one scale.
    hottest = [peak(page, title) for title in ("weave-stain-0001.png", "weave-0044.png")]
    assert hottest[0] > 150 > hottest[1]
    slider.fill("0.8")
    inspect(page, "score")


def peak(page: Page, title: str) -> int:
    """Largest opacity, 0 to 255, of the heat map above this image."""
    row = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=title))
    return row.locator(".heat-layer").evaluate(
        """image => { const canvas = document.createElement("canvas"); canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight; const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0);
        const bytes = pen.getImageData(0, 0, canvas.width, canvas.height).data;
        let most = 0; for (let at = 3; at < bytes.length; at += 4) most = Math.max(most, bytes[at]); return most; }"""
    )


def test_what_a_score_rests_on_is_shown_on_request(page: Page, weave: str, files: Path, inspect: Inspect) -> None:
    page.goto(f"/#/c/{weave}/score")
    page.get_by_label("Does this belong?: images").set_input_files([files / "damaged" / "weave-stain-0001.png"])
    ask = page.get_by_role("button", name="What does this rest on?")
    ask.click()
    expect(page.get_by_text("covered by the nearest normal image they would lower it")).to_be_visible()
    assert peak(page, "weave-stain-0001.png") > 100
    inspect(page, "explained")
    ask.click()
    expect(page.locator(".heat-layer")).to_have_count(0)


def test_a_set_is_judged_as_one(page: Page, weave: str, files: Path, inspect: Inspect) -> None:
    page.goto(f"/#/c/{weave}/score")
    page.get_by_label("Judge them as one set").check()
    page.get_by_label("Does this belong?: images").set_input_files(
        [files / "damaged" / "weave-stain-0001.png", files / "flawless" / "weave-0044.png"]
    )
    expect(page.get_by_role("heading", name="The set of 2, judged as one")).to_be_visible()
    shares = page.get_by_text(re.compile("brings .* of the distance"))
    expect(shares).to_have_count(2)
    inspect(page, "set")


def test_another_rate_changes_verdicts_at_once(page: Page, weave: str, files: Path) -> None:
    page.goto(f"/#/c/{weave}/score")
    page.get_by_label("Does this belong?: images").set_input_files([*(files / "damaged").iterdir()])
    summary = page.locator(".summary")
    expect(summary).to_contain_text("at a false-alarm rate of 4.4 %")
    page.get_by_label("False-alarm rate").fill("99")
    expect(summary).to_contain_text("6 of 6 images are anomalous")
    page.get_by_label("False-alarm rate").fill("0.1")
    expect(summary).to_contain_text("support no rate below 2.2 %")


def test_too_few_normal_images_give_no_verdict(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], files: Path
) -> None:
    make(api, "five", weaves["bank"][:5])
    page.goto("/#/c/five/score")
    page.get_by_label("Does this belong?: images").set_input_files([files / "damaged" / "weave-stain-0001.png"])
    expect(page.locator("p.summary")).to_have_text(
        "No verdict yet: 5 normal images can be compared with, and 10 are needed."
    )
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_missed_defect_is_told_and_taken_back(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], files: Path
) -> None:
    make(api, "told", weaves["bank"][:20])
    page.goto("/#/c/told/score")
    page.get_by_label("False-alarm rate").fill("1")
    page.get_by_label("Does this belong?: images").set_input_files([files / "flawless" / "weave-0044.png"])
    page.get_by_role("button", name=re.compile("Missed|False alarm")).click()
    expect(page.get_by_text(re.compile("Noted: (missed|false alarm)"))).to_be_visible()
    assert api.get("/v1/collections/told").json()["images"] == 21
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name=re.compile("Missed|False alarm"))).to_be_visible()
    assert api.get("/v1/collections/told").json()["images"] == 20
