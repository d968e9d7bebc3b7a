"""Classes over HTTP: registered, asked for, changed and forgotten."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.classes import classifier
from app.classes.classifier import current, known
from models.methods.few_shot_lr import FewShotLRParams, LiveFewShotLR
from tests.app.conftest import Serve
from tests.app.working import core_of
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"
CLASSES = f"{C}/classes"


def drawn(kind: int, seed: int) -> bytes:
    """A picture of one kind: disc, bars, checks or a ramp, in its own colour, with noise of its own."""
    random = np.random.default_rng([kind, seed])
    y, x = np.mgrid[:32, :32]
    shapes = [(x - 16) ** 2 + (y - 16) ** 2 < 100, x % 8 < 4, (x // 8 + y // 8) % 2 == 0, y > x, abs(x - 16) < 3]
    colours = [(230, 40, 40), (40, 200, 60), (50, 70, 230), (230, 220, 50), (220, 60, 220)]
    pixels = np.full((32, 32, 3), 70.0)
    pixels[shapes[kind % 5]] = np.array(colours[kind % 5]) * random.uniform(0.8, 1.0)
    pixels = np.roll(pixels, random.integers(-3, 4, 2), (0, 1)) + random.normal(0, 12, (32, 32, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


NAMES = ["disc", "bars", "checks"]


def files(*images: bytes) -> list:
    return [("files", (f"{place}.png", data, "image/png")) for place, data in enumerate(images)]


def put(client: TestClient, label: str, *images: bytes, **more: Any) -> Any:
    return client.put(f"{CLASSES}/{label}", files=files(*images), **more)


def asked(client: TestClient, *images: bytes, status: int = 200, **parameters: Any) -> dict:
    answer = client.post(f"{C}/classify", files=files(*images), params=parameters)
    assert answer.status_code == status, answer.text
    return answer.json()


def three_classes(client: TestClient, shots: int = 5) -> None:
    client.put(C)
    for kind, label in enumerate(NAMES):
        assert put(client, label, *[drawn(kind, seed) for seed in range(shots)]).status_code == 201


@pytest.fixture(scope="module")
def three(shared: TestClient) -> Iterator[TestClient]:
    """Three classes of five images, beside fifteen normal images. Tests that use it must not write."""
    three_classes(shared)
    add(shared, "c", {f"n{number}": png(number) for number in range(15)})
    yield shared


@pytest.fixture
def own(client: TestClient) -> TestClient:
    """The same three classes in an application of this test's own."""
    three_classes(client)
    return client


# --- classify ---


def test_images_are_put_into_their_class_in_order(three: TestClient) -> None:
    kinds = [2, 0, 1, 1, 2, 0]
    answer = asked(three, *[drawn(kind, 100 + place) for place, kind in enumerate(kinds)], false_alarm_rate=0.07)
    assert [one["label"] for one in answer["results"]] == [NAMES[kind] for kind in kinds]
    assert answer["scorer"] == "few_shot_lr" and answer["classes"] == 3 and answer["metric"] == "cosine"
    assert answer["fingerprint"] == three.get(C).json()["fingerprint"]
    for one in answer["results"]:
        assert one["unknown"] is False and one["p_value"] > 1 / 16
        assert sum(one["probabilities"].values()) == pytest.approx(1.0)
        chances = list(one["probabilities"].values())
        assert chances == sorted(chances, reverse=True) and next(iter(one["probabilities"])) == one["label"]
        assert chances[0] > 0.6
        assert len(one["nearest"]) == 3 and {near["label"] for near in one["nearest"]} == {one["label"]}
        distances = [near["distance"] for near in one["nearest"]]
        assert distances == sorted(distances)
        assert one["score"] == pytest.approx(np.mean(distances), abs=1e-6)  # k = 3
    calibration = answer["calibration"]
    assert calibration["n"] == 15 and calibration["supported"] and calibration["requested"] == 0.07
    assert calibration["false_alarm_rate"] == pytest.approx(1 / 16)
    assert calibration["probabilities"]["n"] == 15 and calibration["probabilities"]["supported"]


def test_an_image_near_none_of_the_classes_is_unknown(three: TestClient) -> None:
    strange, usual = asked(three, drawn(4, 1), drawn(0, 101), false_alarm_rate=0.07)["results"]
    assert strange["unknown"] is True and strange["label"] is None
    assert strange["p_value"] == pytest.approx(1 / 16) and strange["score"] > usual["score"]
    assert sum(strange["probabilities"].values()) == pytest.approx(1.0)
    # Fewer images than the rate asks for: the finest rate there is, and it says so.
    finer = asked(three, drawn(4, 1), false_alarm_rate=0.01)
    assert finer["calibration"]["supported"] is False
    assert finer["calibration"]["false_alarm_rate"] == pytest.approx(1 / 16)
    assert finer["results"][0]["unknown"] is True


def test_every_way_to_send_images(three: TestClient) -> None:
    one, two = drawn(1, 102), drawn(2, 103)
    expected = asked(three, one, two)["results"]
    raw = three.post(f"{C}/classify", content=one, headers={"content-type": "image/png"})
    sent = {"images": [base64.b64encode(one).decode(), {"content": base64.b64encode(two).decode()}], "top": 1}
    document = three.post(f"{C}/classify", json=sent)
    assert raw.json()["results"][0]["probabilities"] == pytest.approx(expected[0]["probabilities"], abs=1e-3)
    assert [list(each["probabilities"]) for each in document.json()["results"]] == [["bars"], ["checks"]]
    assert [each["p_value"] for each in document.json()["results"]] == [each["p_value"] for each in expected]


def test_an_answer_does_not_depend_on_batch_mates(three: TestClient) -> None:
    images = [drawn(seed % 4, 200 + seed) for seed in range(9)]
    together = asked(three, *images)["results"]
    for image, among in zip(images[::4], together[::4], strict=True):
        (alone,) = asked(three, image)["results"]
        assert alone["label"] == among["label"] and alone["p_value"] == among["p_value"]
        assert alone["score"] == pytest.approx(among["score"], rel=1e-4, abs=1e-6)
        assert alone["probabilities"] == pytest.approx(among["probabilities"], abs=1e-3)


def test_stored_images_are_classified_and_an_example_without_itself(three: TestClient) -> None:
    (example,) = three.get(f"{CLASSES}/disc").json()["examples"][:1]
    answer = three.post(f"{C}/classify", json={"ids": [example, "nobody", "n0"]})
    assert answer.status_code == 207
    itself, missing, other = answer.json()["results"]
    assert missing["problem"]["code"] == "image_unknown"
    assert itself["id"] == example and itself["label"] == "disc"
    assert example not in [near["id"] for near in itself["nearest"]]
    (seen,) = asked(three, drawn(0, 0))["results"]  # the same bytes as a file: nothing is left out
    assert seen["nearest"][0]["id"] == example and seen["nearest"][0]["distance"] < 1e-5
    assert other["id"] == "n0"


def test_a_bad_file_is_a_problem_in_its_place(three: TestClient) -> None:
    answer = asked(three, drawn(0, 104), b"rubbish", drawn(1, 105), status=207)
    first, bad, last = answer["results"]
    assert bad["problem"]["code"] == "image_unreadable"
    assert (first["label"], last["label"]) == ("disc", "bars")
    assert asked(three, b"rubbish", status=207)["results"][0]["problem"]["status"] == 422


def test_how_many_classes_and_examples_are_shown(three: TestClient) -> None:
    (one,) = asked(three, drawn(0, 106), top=2, neighbours=7)["results"]
    assert len(one["probabilities"]) == 2 and len(one["nearest"]) == 7
    (none,) = asked(three, drawn(0, 106), neighbours=0)["results"]
    assert none["nearest"] == [] and len(none["probabilities"]) == 3


def test_what_cannot_be_asked(three: TestClient) -> None:
    image = files(drawn(0, 1))
    problem_of(three.post(f"{C}/classify", json={}), 422, "no_images")
    problem_of(three.post(f"{C}/classify", files=image, data={"ids": '["n0"]'}), 422, "conflicting_parameters")
    for name, value in [("top", 0), ("false_alarm_rate", 0), ("false_alarm_rate", 1), ("neighbours", 101), ("k", 3)]:
        problem_of(three.post(f"{C}/classify", files=image, params={name: value}), 422)
    problem_of(three.post("/v1/collections/nowhere/classify", files=image), 404, "collection_unknown")


def test_without_classes_it_says_what_to_do(client: TestClient) -> None:
    add(client, "c", {"a": png(1)}, role="anomalous", label="scratch")
    add(client, "c", {"b": png(2)}, role="example")
    problem = problem_of(client.post(f"{C}/classify", files=files(png(3))), 409, "no_classes")
    assert "PUT /v1/collections/c/classes/" in problem["detail"]
    assert client.get(CLASSES).json() == {"classes": []}  # a label of a defect is no class, an example without neither


def test_the_answer_is_the_methods_on_the_stored_vectors(three: TestClient) -> None:
    """The same computed here, from vectors read back: nothing comes in between."""
    core = core_of(three)
    state = core.shelf.get("c")
    ids = [one for label in NAMES for one in three.get(f"{CLASSES}/{label}").json()["examples"]]
    pks = np.array([state.entry(one).pk for one in ids])
    live = LiveFewShotLR(width=state.width, params=FewShotLRParams())
    live.add(pks, state.entries.keys_of(pks), [state.entry(one).label for one in ids], state.vectors(pks))
    asked_about = state.entry("n3").pk
    expected = live.fitted().classify(state.vectors([asked_about]))
    (found,) = three.post(f"{C}/classify", json={"ids": ["n3"]}).json()["results"]
    chances = dict(zip(live.fitted().labels, expected.probabilities[0].tolist(), strict=True))
    assert found["probabilities"] == pytest.approx(chances, rel=1e-12)
    assert found["score"] == expected.score[0]


# --- few examples ---


def test_one_class_alone_is_certain_and_unknown_does_the_work(client: TestClient) -> None:
    client.put(C)
    assert put(client, "disc", *[drawn(0, seed) for seed in range(12)]).status_code == 201
    usual, strange = asked(client, drawn(0, 50), drawn(2, 50), false_alarm_rate=0.08)["results"]
    assert usual["probabilities"] == strange["probabilities"] == {"disc": 1.0}
    assert (usual["label"], usual["unknown"]) == ("disc", False)
    assert (strange["label"], strange["unknown"]) == (None, True)


def test_one_image_of_each_class_gives_no_verdict_and_says_so(client: TestClient) -> None:
    client.put(C)
    for kind, label in enumerate(NAMES):
        put(client, label, drawn(kind, 0))
    answer = asked(client, drawn(1, 60))
    assert answer["calibration"]["n"] == 0 and answer["calibration"]["threshold"] is None
    assert answer["calibration"]["single_image_classes"] == 3
    assert answer["calibration"]["probabilities"] == {"n": 0, "supported": False, "temperature": 1.0}
    (one,) = answer["results"]
    assert (one["label"], one["unknown"], one["p_value"]) == ("bars", None, None)
    # Nine images calibrate nothing either; p is given, the verdict is not.
    for seed in (1, 2):
        for kind, label in enumerate(NAMES):
            put(client, label, drawn(kind, seed))
    answer = asked(client, drawn(1, 60))
    assert answer["calibration"]["n"] == 9 and answer["results"][0]["unknown"] is None
    assert answer["results"][0]["p_value"] >= 0.1


# --- making and changing classes ---


def test_a_class_is_made_extended_and_replaced(client: TestClient) -> None:
    client.put(C)
    images = [drawn(0, seed) for seed in range(4)]
    made = put(client, "disc", *images[:2])
    assert made.status_code == 201
    body = made.json()
    assert (body["label"], body["count"], body["created"], body["released"]) == ("disc", 2, 2, [])
    ids = [one["id"] for one in body["items"]]
    again = put(client, "disc", *images[:2])  # idempotent
    assert again.status_code == 200 and again.json()["count"] == 2
    assert [one["status"] for one in again.json()["items"]] == ["duplicate"] * 2
    more = put(client, "disc", images[2])
    assert more.status_code == 200 and more.json()["count"] == 3
    shown = client.get(f"{CLASSES}/disc").json()
    assert shown["examples"] == [*ids, more.json()["items"][0]["id"]] and shown["count"] == 3
    replaced = put(client, "disc", images[2], images[3], params={"mode": "replace"})
    assert replaced.status_code == 200 and replaced.json()["count"] == 2
    assert sorted(replaced.json()["released"]) == sorted(ids)
    released = client.get(f"{C}/images/{ids[0]}").json()
    assert (released["role"], released["label"]) == ("unlabelled", None)
    assert client.get(C).json()["roles"] == {"normal": 0, "anomalous": 0, "unlabelled": 2, "example": 2}


def test_examples_never_become_normal_images(own: TestClient) -> None:
    add(own, "c", {f"n{number}": png(number) for number in range(3)})
    before = own.post(f"{C}/anomaly", files=files(png(50))).json()["results"][0]["score"]
    put(own, "ramp", *[drawn(3, seed) for seed in range(3)])
    after = own.post(f"{C}/anomaly", files=files(png(50))).json()
    assert after["results"][0]["score"] == before
    assert own.get(C).json()["roles"] == {"normal": 3, "anomalous": 0, "unlabelled": 0, "example": 18}
    # Sent again as a plain image it stays an example.
    own.post(f"{C}/images", files=files(drawn(3, 0)))
    assert own.get(C).json()["roles"]["example"] == 18


def test_stored_images_become_examples_and_it_is_told_what_they_were(own: TestClient) -> None:
    add(own, "c", {"a": drawn(3, 0), "b": drawn(3, 1)})
    add(own, "c", {"d": drawn(3, 2)}, role="anomalous", label="scratch")
    made = own.put(f"{CLASSES}/ramp", json={"ids": ["a", "d", "a"]})
    assert made.status_code == 201
    assert [(one["id"], one["status"], one["before"]) for one in made.json()["items"]] == [
        ("a", "updated", {"role": "normal", "label": None}),
        ("d", "updated", {"role": "anomalous", "label": "scratch"}),
    ]
    assert own.get(f"{C}/images/d").json()["label"] == "ramp"
    assert own.get(C).json()["roles"]["normal"] == 1
    both = put(own, "ramp", drawn(3, 1), data={"ids": '["a"]', "items": '[{"id": "b"}]'})
    assert both.status_code == 200 and both.json()["count"] == 3
    assert [one["status"] for one in both.json()["items"]] == ["updated", "duplicate"]
    assert both.json()["items"][0]["before"] == {"role": "normal", "label": None}
    # From one class to another.
    moved = own.put(f"{CLASSES}/slope", json={"ids": ["a"]})
    assert moved.status_code == 201 and moved.json()["items"][0]["before"] == {"role": "example", "label": "ramp"}
    assert own.get(f"{CLASSES}/ramp").json()["count"] == 2


def roles_of(client: TestClient, *images: str) -> list[tuple[str, str | None]]:
    told = [client.get(f"{C}/images/{one}").json() for one in images]
    return [(one["role"], one["label"]) for one in told]


def test_an_image_that_leaves_its_class_is_again_what_it_was(own: TestClient) -> None:
    add(own, "c", {"a": drawn(3, 0), "b": drawn(3, 1), "e": drawn(3, 3)})
    add(own, "c", {"d": drawn(3, 2)}, role="anomalous", label="scratch")
    put(own, "ramp", drawn(3, 4), drawn(3, 1), data={"ids": '["a", "d"]', "items": '[{"id": "new"}, {"id": "b"}]'})
    own.put(f"{CLASSES}/ramp", json={"ids": ["a"]}).raise_for_status()  # once more: it is an example already
    own.put(f"{CLASSES}/slope", json={"ids": ["a"]}).raise_for_status()  # and of another class
    given = own.post(f"{C}/feedback", json={"kind": "confirmed", "id": "b"}).json()
    assert own.delete(f"{C}/feedback/{given['id']}").status_code == 200
    own.put(f"{CLASSES}/ramp", json={"ids": ["e"], "mode": "replace"}).raise_for_status()
    assert roles_of(own, "b", "d", "new") == [("normal", None), ("anomalous", None), ("unlabelled", None)]
    assert own.delete(f"{CLASSES}/slope").status_code == 204
    assert roles_of(own, "a") == [("normal", None)]
    assert own.delete(f"{CLASSES}/ramp", params={"role": "anomalous"}).status_code == 204
    assert roles_of(own, "e") == [("anomalous", None)]
    assert own.get(C).json()["roles"] == {"normal": 2, "anomalous": 2, "unlabelled": 1, "example": 15}


def test_what_a_patch_made_of_an_example_is_not_taken_back(own: TestClient) -> None:
    add(own, "c", {"a": drawn(3, 0)})
    own.put(f"{CLASSES}/ramp", json={"ids": ["a"]}).raise_for_status()
    own.patch(f"{C}/images/a", json={"role": "anomalous", "label": None}).raise_for_status()
    own.patch(f"{C}/images/a", json={"role": "example", "label": "ramp"}).raise_for_status()
    assert own.delete(f"{CLASSES}/ramp").status_code == 204
    assert roles_of(own, "a") == [("anomalous", None)]


def test_bad_images_are_told_and_good_ones_taken(own: TestClient) -> None:
    mixed = put(own, "ramp", drawn(3, 0), b"rubbish", data={"ids": '["nobody"]'})
    assert mixed.status_code == 207
    body = mixed.json()
    assert [one["status"] for one in body["items"]] == ["created", "refused", "refused"]
    assert [one.get("problem", {}).get("code") for one in body["items"]] == [None, "image_unreadable", "image_unknown"]
    assert (body["count"], body["refused"]) == (1, 2)
    before = own.get(CLASSES).json()
    problem = problem_of(put(own, "disc", b"rubbish", params={"mode": "replace"}), 422, "no_images")
    assert problem["refused"][0]["problem"]["code"] == "image_unreadable"
    problem_of(own.put(f"{CLASSES}/disc", json={"ids": ["nobody"], "mode": "replace"}), 404, "image_unknown")
    assert own.get(CLASSES).json() == before
    assert own.get(C).json()["images"] == 16


def test_what_cannot_be_registered(own: TestClient) -> None:
    before = own.get(C).json()["sequence"]
    image = files(drawn(3, 0))
    for answer, code in [
        (own.put(f"{CLASSES}/ramp", json={}), "no_images"),
        (own.put(f"{CLASSES}/ramp", json={"ids": []}), "no_images"),
        (own.put(f"{CLASSES}/a b", files=image), "invalid"),
        (own.put(f"{CLASSES}/ramp", files=image, params={"mode": "merge"}), "invalid"),
        (own.put(f"{CLASSES}/ramp", files=image, data={"role": "normal"}), "invalid"),
        (own.put(f"{CLASSES}/ramp", files=image, data={"items": '[{"role": "normal"}]'}), "conflicting_parameters"),
        (own.put(f"{CLASSES}/ramp", files=image, data={"items": '[{"label": "x"}]'}), "conflicting_parameters"),
        (own.put(f"{CLASSES}/ramp", files=image, data={"items": "[{}, {}]"}), "items_mismatch"),
    ]:
        problem_of(answer, 422, code)
    problem_of(own.put("/v1/collections/nowhere/classes/a", files=image), 404, "collection_unknown")
    assert own.get(C).json()["sequence"] == before


def test_a_repeat_under_a_key_changes_nothing(own: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = put(own, "ramp", drawn(3, 0), headers=headers)
    put(own, "ramp", drawn(3, 1))
    again = put(own, "ramp", drawn(3, 0), headers=headers)
    assert again.json() == first.json() and again.status_code == 201
    assert again.headers["Idempotent-Replayed"] == "true"
    problem_of(put(own, "ramp", drawn(3, 2), headers=headers), 422, "idempotency_key_reused")
    stored = own.put(f"{CLASSES}/disc", json={"ids": [first.json()["items"][0]["id"]]}, headers=headers)
    assert stored.status_code == 200  # another path, another key
    repeat = own.put(f"{CLASSES}/disc", json={"ids": [first.json()["items"][0]["id"]]}, headers=headers)
    assert repeat.json() == stored.json() and "Idempotent-Replayed" in repeat.headers
    own.delete(C)
    own.put(C)
    assert put(own, "ramp", drawn(3, 0), headers=headers).headers.get("Idempotent-Replayed") is None


def test_classes_are_listed_in_order_with_their_examples(own: TestClient) -> None:
    listed = own.get(CLASSES).json()["classes"]
    assert [(one["label"], one["count"]) for one in listed] == [("bars", 5), ("checks", 5), ("disc", 5)]
    assert listed[0] == own.get(f"{CLASSES}/bars").json()
    oldest = own.get(f"{C}/images/{listed[2]['examples'][0]}").json()["created_at"]
    assert listed[2]["created_at"] == oldest
    problem_of(own.get(f"{CLASSES}/nothing"), 404, "class_unknown")


def test_a_deleted_class_is_forgotten_and_its_images_stay_unless_told_otherwise(own: TestClient) -> None:
    gone = own.delete(f"{CLASSES}/disc")
    assert gone.status_code == 204
    assert int(gone.headers["Oddity-Sequence"]) == own.get(C).json()["sequence"]
    assert own.get(C).json()["roles"] == {"normal": 0, "anomalous": 0, "unlabelled": 5, "example": 10}
    assert set(asked(own, drawn(0, 7))["results"][0]["probabilities"]) == {"bars", "checks"}
    problem_of(own.delete(f"{CLASSES}/disc"), 404, "class_unknown")
    assert own.delete(f"{CLASSES}/bars", params={"role": "normal"}).status_code == 204
    assert own.get(C).json()["roles"]["normal"] == 5
    assert own.delete(f"{CLASSES}/checks", params={"images": "delete"}).status_code == 204
    assert own.get(C).json()["images"] == 10
    problem_of(own.post(f"{C}/classify", files=files(drawn(0, 1))), 409, "no_classes")
    problem_of(own.delete(f"{CLASSES}/bars", params={"role": "example"}), 422)


def test_a_class_added_and_deleted_leaves_no_trace_in_answers(own: TestClient) -> None:
    images = [drawn(kind, 70 + kind) for kind in range(4)]
    before = asked(own, *images)
    put(own, "ramp", *[drawn(3, seed) for seed in range(5)])
    between = asked(own, *images)
    assert between["results"][3]["label"] == "ramp" and between["results"][0] != before["results"][0]
    own.delete(f"{CLASSES}/ramp", params={"images": "delete"})
    after = asked(own, *images)
    assert after["results"] == before["results"] and after["calibration"] == before["calibration"]


def test_whatever_changes_images_changes_classes(own: TestClient) -> None:
    add(own, "c", {"r0": drawn(3, 0), "r1": drawn(3, 1)}, role="example", label="ramp")
    assert own.get(f"{CLASSES}/ramp").json()["examples"] == ["r0", "r1"]
    assert "ramp" in asked(own, drawn(3, 9))["results"][0]["probabilities"]
    own.patch(f"{C}/images/r0", json={"label": "slope"})
    assert own.get(f"{CLASSES}/slope").json()["examples"] == ["r0"]
    assert "slope" in asked(own, drawn(3, 9))["results"][0]["probabilities"]
    own.patch(f"{C}/images/r0", json={"role": "normal"})
    own.delete(f"{C}/images/r1")
    assert [one["label"] for one in own.get(CLASSES).json()["classes"]] == sorted(NAMES)
    assert set(asked(own, drawn(3, 9))["results"][0]["probabilities"]) == set(NAMES)


def test_an_example_sent_again_with_other_bytes_is_learnt_anew(own: TestClient) -> None:
    put(own, "ramp", drawn(3, 0), data={"items": '[{"id": "r"}]'})
    before = asked(own, drawn(3, 9))["results"][0]
    put(own, "ramp", drawn(4, 0), data={"items": '[{"id": "r"}]'})
    after = asked(own, drawn(3, 9))["results"][0]
    assert own.get(f"{CLASSES}/ramp").json()["count"] == 1
    assert after["probabilities"]["ramp"] < before["probabilities"]["ramp"]


# --- the fit in memory ---


def test_a_write_elsewhere_costs_no_fit(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(own, drawn(0, 1))
    fits: list[int] = []

    class Counted(LiveFewShotLR):
        def fitted(self):  # type: ignore[no-untyped-def]
            fits.append(1)
            return super().fitted()

    monkeypatch.setattr(classifier, "LiveFewShotLR", Counted)
    add(own, "c", {"n": png(1)})
    own.patch(f"{C}/images/n", json={"metadata": {"a": 1}})
    example = own.get(f"{CLASSES}/disc").json()["examples"][0]
    own.patch(f"{C}/images/{example}", json={"metadata": {"a": 1}})
    assert asked(own, drawn(0, 1))["sequence"] == own.get(C).json()["sequence"]
    assert fits == []
    own.patch(f"{C}/images/{example}", json={"group": "day-1"})
    asked(own, drawn(0, 1))
    asked(own, drawn(0, 2))
    assert fits == [1]


def test_those_who_need_the_same_fit_wait_for_it_together(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody else does: while it lasts, images are added and scored."""
    add(own, "c", {f"n{number}": png(number) for number in range(3)})
    state = core_of(own).shelf.get("c")
    begun, held, fits = threading.Event(), threading.Event(), []

    class Slow(LiveFewShotLR):
        def fitted(self):  # type: ignore[no-untyped-def]
            fits.append(1)
            begun.set()
            assert held.wait(30)
            return super().fitted()

    monkeypatch.setattr(classifier, "LiveFewShotLR", Slow)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(current, state) for _ in range(6)]
        through_http = pool.submit(asked, own, drawn(1, 1))
        assert begun.wait(30)
        add(own, "c", {"late": png(77)})
        assert own.post(f"{C}/anomaly", files=files(png(50))).status_code == 200
        assert not any(one.done() for one in [*waiting, through_http])
        held.set()
        found = [one.result(30)[0] for one in waiting]
        assert through_http.result(30)["results"][0]["label"] == "bars"
    assert fits == [1] and all(one is found[0] for one in found)
    with state.lock.read():
        assert known(state) is found[0]


def test_a_change_during_the_fit_is_seen_by_the_next_answer(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    state = core_of(own).shelf.get("c")
    begun, held = threading.Event(), threading.Event()

    class Slow(LiveFewShotLR):
        def fitted(self):  # type: ignore[no-untyped-def]
            begun.set()
            assert held.wait(30)
            return super().fitted()

    monkeypatch.setattr(classifier, "LiveFewShotLR", Slow)
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(current, state)
        assert begun.wait(30)
        made = put(own, "ramp", drawn(3, 0)).json()
        held.set()
        fitted, sequence = early.result(30)
    assert "ramp" not in fitted.labels and sequence == made["sequence"] - 1
    answer = asked(own, drawn(3, 1), after=made["sequence"])
    assert "ramp" in answer["results"][0]["probabilities"] and answer["sequence"] == made["sequence"]


def test_the_memory_of_the_fit_is_counted(own: TestClient) -> None:
    state = core_of(own).shelf.get("c")
    before = state.memory_bytes()
    asked(own, drawn(0, 1))
    assert state.memory_bytes() - before == state.kept["classes"].memory_bytes > 15 * state.width * 4


def test_classes_are_there_after_a_restart(serve: Serve) -> None:
    with serve() as client:
        three_classes(client)
        before = asked(client, drawn(1, 9))
    with serve() as client:
        after = asked(client, drawn(1, 9))
        assert json.dumps(after) == json.dumps(before)
