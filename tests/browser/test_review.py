"""The review queue: what a person says changes the roles, and can be taken back."""

import re

from playwright.sync_api import Page, expect

from app.cli.demo_images import MadeImage
from tests.browser.conftest import Api, Inspect, make, send


def roles(api: Api, name: str) -> dict[str, int]:
    found: dict[str, int] = api.get(f"/v1/collections/{name}").json()["roles"]
    return found


def test_alarms_are_confirmed_or_called_false_and_misses_are_told(
    page: Page, api: Api, weaves: dict[str, list[MadeImage]], inspect: Inspect
) -> None:
    make(api, "queue", weaves["bank"])
    send(api, "queue", [weaves["damaged"][1], *weaves["flawless"][:3]], role="unlabelled")
    page.goto("/#/c/queue/review")
    left = page.get_by_text(re.compile("images? to look at"))
    expect(left).to_contain_text("5 images")  # those nobody judged, and an alarm in the bank
    panel = page.get_by_role("region", name=re.compile("Image to judge"))
    expect(panel).to_contain_text("weave-stain-0001.png")  # the strangest first
    expect(panel.get_by_role("button", name=re.compile("Open weave"))).to_have_count(4)
    inspect(page, "review")
    panel.get_by_role("button", name="Confirm").click()
    expect(panel).not_to_contain_text("weave-stain-0001.png")
    assert roles(api, "queue") == {"normal": 44, "anomalous": 1, "unlabelled": 3, "example": 0}
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(panel).to_contain_text("weave-stain-0001.png")
    assert roles(api, "queue")["unlabelled"] == 4
    panel.press("c")  # the keyboard does the same
    expect(panel).not_to_contain_text("weave-stain-0001.png")
    expect(panel).to_contain_text("Belongs")
    panel.press("n")
    expect(page.get_by_text(re.compile("^Normal: weave"))).to_be_visible()
    assert roles(api, "queue")["normal"] == 45
    first = panel.get_by_role("heading", level=2).inner_text()
    panel.press("s")
    expect(panel.get_by_role("heading", level=2)).not_to_have_text(first)
    panel.get_by_role("button", name="Missed").click()
    expect(page.get_by_text(re.compile("^Missed: weave"))).to_be_visible()
    expect(panel).to_contain_text("Anomalous")  # an alarm in the bank
    before = roles(api, "queue")
    panel.get_by_role("button", name="False alarm").click()
    expect(page.get_by_text(re.compile("^False alarm: weave"))).to_be_visible()
    assert roles(api, "queue") == before  # it is normal already; the answer is remembered
    page.reload()
    page.get_by_text("Said so far: 4").click()
    undo = page.get_by_role("button", name=re.compile("Undo: Missed"))
    undo.click()
    expect(undo).to_have_count(0)
    assert roles(api, "queue")["anomalous"] == before["anomalous"] - 1


def test_nothing_waits_in_a_new_collection(page: Page, api: Api, weaves: dict[str, list[MadeImage]]) -> None:
    make(api, "calm", weaves["bank"][:9])  # too few for any alarm
    page.goto("/#/c/calm/review")
    expect(page.get_by_text("Nothing is waiting")).to_be_visible()


def test_which_of_two_is_odder(page: Page, api: Api, weaves: dict[str, list[MadeImage]], inspect: Inspect) -> None:
    make(api, "pairs", weaves["bank"][:12])
    send(api, "pairs", weaves["damaged"][:4], role="unlabelled")
    page.goto("/#/c/pairs/review")
    question = page.get_by_role("region", name="Which of two is odder?")
    expect(question).to_contain_text("0 answered")
    inspect(page, "pairs")
    question.get_by_role("button", name="The left one is odder").click()
    expect(question).to_contain_text("1 answered")
    question.get_by_role("button", name="Cannot say").click()
    expect(question).to_contain_text("2 answered")
    kinds = [(one["kind"], one["answer"]) for one in api.get("/v1/collections/pairs/feedback").json()["feedback"]]
    assert ("pair", "left") in kinds
