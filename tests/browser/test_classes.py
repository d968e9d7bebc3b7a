"""Kinds from a few examples each: registered from a selection, asked for, and none of them."""

from pathlib import Path

from playwright.sync_api import Page, expect

from app.cli.demo_images import digit_images
from tests.browser.conftest import Api, Inspect, send


def test_classes_are_registered_from_a_selection_and_strangers_are_none_of_these(
    page: Page, api: Api, tmp_path: Path, inspect: Inspect
) -> None:
    digits = digit_images()
    of = {digit: [one for one in digits if one.kind == digit] for digit in "013"}
    assert api.put("/v1/collections/kinds", json={}).status_code == 201
    send(api, "kinds", of["0"][:8] + of["1"][:8], role="unlabelled")
    for one in (of["0"][8], of["1"][8], *of["3"][:4]):
        (tmp_path / one.name).write_bytes(one.data)
    for digit, label in (("0", "zero"), ("1", "one")):
        page.goto("/#/c/kinds/images")
        for one in of[digit][:8]:
            page.get_by_label(f"Choose {one.name}").check()
        page.get_by_role("link", name="Classes", exact=True).click()
        page.get_by_label("Class", exact=True).fill(label)
        page.get_by_role("button", name="Register the 8 chosen").click()
        expect(page.get_by_text(f"{label} knows 8 more examples.")).to_be_visible()
    expect(page.get_by_role("heading", name="zero")).to_be_visible()
    page.get_by_label("Known ones that may").fill("10")
    page.get_by_label("Classify: a folder").set_input_files(tmp_path)
    expect(page.get_by_text("6 images")).to_be_visible()

    def answer(name: str):
        return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))

    expect(answer(of["0"][8].name)).to_contain_text("zero")
    expect(answer(of["3"][0].name)).to_contain_text("None of these")
    expect(answer(of["3"][0].name).get_by_role("list", name="Probabilities")).to_contain_text("%")
    inspect(page, "classes")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget one").click()
    expect(page.get_by_role("button", name="Forget one")).to_have_count(0)
    assert [one["label"] for one in api.get("/v1/collections/kinds/classes").json()["classes"]] == ["zero"]


def test_a_class_without_a_name_is_asked_for_one(page: Page, weave: str, files: Path) -> None:
    page.goto(f"/#/c/{weave}/classes")
    page.get_by_label("Examples: images").set_input_files([next((files / "damaged").iterdir())])
    expect(page.get_by_role("alert")).to_contain_text("Say first what the class is called.")
