"""The border among the scores, moved by asking for another false-alarm rate."""

import re

from playwright.sync_api import Page, expect

from app.cli.demo_images import MadeImage
from tests.browser.conftest import Api, Inspect, make, send


def test_another_rate_shows_what_would_change_and_is_kept(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], inspect: Inspect
) -> None:
    make(api, "border", weaves["bank"])
    send(api, "border", weaves["damaged"][:4] + weaves["flawless"][:4], role="unlabelled")
    page.goto("/#/c/border/threshold")
    chart = page.get_by_role("img", name=re.compile("Histogram of scores: 44 normal, 1 of them above the border"))
    expect(chart).to_be_visible()
    page.get_by_label("False-alarm rate %").fill("30")
    expect(page.get_by_role("img", name=re.compile("44 normal, 12 of them above the border"))).to_be_visible()
    expect(page.get_by_text("a false-alarm rate of 28.9 %, from 44 normal images")).to_be_visible()
    would = page.get_by_role("region", name="Would alarm")
    expect(would.get_by_role("button", name=re.compile("Open weave")).first).to_be_visible()
    inspect(page, "threshold")
    told = api.get("/v1/collections/border/scores?limit=2000&false_alarm_rate=0.3").json()
    begin = [one for one in told["images"] if one["anomalous"] and one["p_value"] > 2 / 45]
    expect(would.get_by_role("heading")).to_have_text(f"Would alarm: {len(begin)}")
    page.get_by_role("button", name="Use for border").click()
    expect(page.get_by_text("44 normal images · 8 unlabelled · false-alarm rate 30 %")).to_be_visible()
    expect(would).to_have_count(0)
    assert api.get("/v1/collections/border").json()["false_alarm_rate"] == 0.3
    slider = page.get_by_label("False-alarm rate, slider")
    slider.focus()
    slider.press("Home")
    expect(page.get_by_text("44 normal images support no rate below 2.2 %")).to_be_visible()
    expect(page.get_by_role("region", name="Would pass")).to_be_visible()


def test_too_few_normal_images_say_how_many_are_needed(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]]
) -> None:
    make(api, "few", weaves["bank"][:4])
    page.goto("/#/c/few/threshold")
    expect(page.get_by_text("10 are needed for a verdict, and 19 for a false-alarm rate of 5 %")).to_be_visible()
