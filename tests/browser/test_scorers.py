"""Methods on their cards: fitted while one watches, compared on the same images; and the jobs they are."""

import re

from playwright.sync_api import Page, expect

from app.cli.demo_images import MadeImage
from tests.browser.conftest import Api, Inspect, make


def test_a_method_is_fitted_compared_and_forgotten(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], inspect: Inspect
) -> None:
    make(api, "judges", weaves["bank"])
    page.goto("/#/c/judges/scorers")
    expect(page.get_by_text("Only dn2 is ready here")).to_be_visible()
    card = page.get_by_role("listitem", name="mahalanobis")
    card.get_by_text("Card").click()
    expect(card.get_by_role("link", name=re.compile("Modeling the Distribution of Normal Data"))).to_be_visible()
    card.get_by_role("button", name="Fit mahalanobis").click()
    expect(card).to_contain_text(re.compile("fitted on [0-9]+ images"))
    page.get_by_role("button", name="Compare on 24 stored images").click()
    expect(page.get_by_text(re.compile("They agree on [0-9]+ of 24 images"))).to_be_visible()
    expect(page.get_by_role("region", name="Both scorers, image by image").get_by_role("row")).to_have_count(25)
    inspect(page, "scorers")
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("row", name=re.compile("Fit a scorer mahalanobis judges done"))).to_be_visible()
    inspect(page, "jobs")
    page.goto("/#/c/judges/scorers")
    page.once("dialog", lambda dialog: dialog.accept())
    card.get_by_role("button", name="Forget mahalanobis").click()
    expect(card).to_contain_text("not fitted here")
    assert [one["id"] for one in api.get("/v1/collections/judges/scorers").json()["scorers"] if not one["live"]] == []


def test_a_wrong_parameter_is_refused_with_a_sentence(page: Page, weave: str) -> None:
    page.goto(f"/#/c/{weave}/scorers")
    card = page.get_by_role("listitem", name="patch_knn")
    card.get_by_text("Parameters").click()
    card.get_by_label(re.compile("^memory patches")).fill("0")
    card.get_by_role("button", name="Fit patch_knn").click()
    expect(card.get_by_role("alert")).to_contain_text("`memory_patches`")
