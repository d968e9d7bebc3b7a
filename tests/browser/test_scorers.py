"""Methods on their cards: fitted while one watches, compared on the same images; and the jobs they are."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from app.cli.demo_images import MadeImage
from tests.browser.conftest import Api, Inspect, fitted_method, make


def test_a_method_is_fitted_compared_and_forgotten(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], files: Path, inspect: Inspect
) -> None:
    method = fitted_method(with_heat_maps=False)
    make(api, "judges", weaves["bank"])
    page.goto("/#/c/judges/scorers")
    expect(page.get_by_text("Only dn2 is ready here")).to_be_visible()
    card = page.get_by_role("listitem", name=method)
    card.get_by_text("Card").click()
    expect(card.get_by_role("link", name=api.get(f"/v1/scorers/{method}").json()["paper"]["title"])).to_be_visible()
    card.get_by_role("button", name=f"Fit {method}").click()
    expect(card).to_contain_text(re.compile("fitted on [0-9]+ images"))
    page.get_by_role("button", name="Compare on 24 stored images").click()
    expect(page.get_by_text(re.compile("They agree on [0-9]+ of 24 images"))).to_be_visible()
    expect(page.get_by_role("region", name="Both scorers, image by image").get_by_role("row")).to_have_count(25)
    inspect(page, "scorers")
    page.get_by_role("link", name="Score", exact=True).click()
    page.get_by_label("Does this belong?: images").set_input_files([files / "damaged" / "weave-stain-0001.png"])
    expect(page.get_by_text("p =")).to_be_visible()
    page.get_by_label("Scorer").select_option(method)  # judged by the other one at once
    expect(page.get_by_text("from 10 normal images")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    # Wherever scores are shown, by the same scorer until another is chosen.
    page.get_by_role("link", name="Threshold", exact=True).click()
    expect(page.get_by_label("Scorer")).to_have_value(method)
    expect(page.get_by_role("img", name=re.compile("Histogram of scores: 10 normal"))).to_be_visible()
    inspect(page, "threshold-fitted")
    page.get_by_role("link", name="Map", exact=True).click()
    expect(page.get_by_label("Scorer")).to_have_value(method)
    expect(page.get_by_role("application", name=re.compile("Map of 44 images"))).to_be_visible()
    page.get_by_role("link", name="Review", exact=True).click()
    expect(page.get_by_text(re.compile("images? to look at"))).to_be_visible()
    page.get_by_label("Scorer").select_option("dn2")
    expect(page).not_to_have_url(re.compile("scorer="))
    expect(page.get_by_text(re.compile("images? to look at"))).to_be_visible()
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("row", name=f"Fit a scorer {method} judges done")).to_be_visible()
    inspect(page, "jobs")
    page.goto("/#/c/judges/scorers")
    page.once("dialog", lambda dialog: dialog.accept())
    card.get_by_role("button", name=f"Forget {method}").click()
    expect(card).to_contain_text("not fitted here")
    assert [one["id"] for one in api.get("/v1/collections/judges/scorers").json()["scorers"] if not one["live"]] == []


def test_a_wrong_parameter_is_refused_with_a_sentence(page: Page, api: Api, weave: str) -> None:
    method = fitted_method(with_heat_maps=True)
    fields = api.get(f"/v1/scorers/{method}").json()["params"]["properties"]
    field = next(name for name, one in fields.items() if one.get("type") == "integer" and one.get("minimum") == 1)
    page.goto(f"/#/c/{weave}/scorers")
    card = page.get_by_role("listitem", name=method)
    card.get_by_text("Parameters").click()
    card.get_by_label(re.compile(f"^{field.replace('_', ' ')}")).fill("0")
    card.get_by_role("button", name=f"Fit {method}").click()
    expect(card.get_by_role("alert")).to_contain_text(f"`{field}`")
