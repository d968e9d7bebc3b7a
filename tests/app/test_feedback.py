"""Feedback: a verdict put right changes the next score, and taking it back changes it back."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.working import asked, core_of, finished, part
from tests.conftest import add, png

SPREAD = 10.0
RATE = 0.05
MISSED = part(950, SPREAD, scratch=3)
SEEN_AGAIN = part(950, SPREAD, scratch=3, again=2.0)
GOOD = [part(seed, SPREAD) for seed in (900, 901, 902)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def name(client: TestClient, request: pytest.FixtureRequest) -> str:
    """A collection of the test's own with 24 normal parts."""
    name = f"of_{request.node.name}"[:100].replace("[", ".").replace("]", "")
    add(client, name, {f"n{seed}": part(seed, SPREAD) for seed in range(24)})
    return name


def give(client: TestClient, name: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/collections/{name}/feedback", json=body)
    assert answer.status_code == 201, answer.text
    given: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/collections/{name}/feedback/{given['id']}"
    return given


def undo(client: TestClient, name: str, feedback: dict[str, Any]) -> Any:
    return client.request("DELETE", f"/v1/collections/{name}/feedback/{feedback['id']}")


def role(client: TestClient, name: str, image: str) -> str | None:
    answer = client.get(f"/v1/collections/{name}/images/{image}")
    return answer.json()["role"] if answer.status_code == 200 else None


def test_a_missed_defect_once_taught_alarms_next_time_until_the_lesson_is_taken_back(
    client: TestClient, name: str
) -> None:
    before = asked(client, name, [MISSED, SEEN_AGAIN, *GOOD], false_alarm_rate=RATE)
    assert [one["anomalous"] for one in before["results"]] == [False] * 5

    answer = client.post(
        f"/v1/collections/{name}/feedback",
        files={"file": ("scratch.png", MISSED)},
        data={"kind": "missed", "note": "scratch left of the middle"},
    )
    assert answer.status_code == 201, answer.text
    given = answer.json()
    assert given["changed"] == {"stored": True, "role": {"before": None, "after": "anomalous"}}
    assert given["calibration"] == {"n": 24}
    assert "taught defect" in given["scorers"]["dn2"]

    after = asked(client, name, [MISSED, SEEN_AGAIN, *GOOD], false_alarm_rate=RATE)
    assert [one["anomalous"] for one in after["results"]] == [True, True, False, False, False]
    assert after["results"][1]["known_anomaly"]["id"] == given["image"]
    assert [one["score"] for one in after["results"][2:]] == [one["score"] for one in before["results"][2:]]

    undone = undo(client, name, given)
    assert undone.status_code == 200
    assert undone.json()["undone_at"] is not None
    assert role(client, name, given["image"]) is None, "the image came with the feedback and goes with it"
    restored = asked(client, name, [MISSED, SEEN_AGAIN, *GOOD], false_alarm_rate=RATE)
    assert restored["results"] == before["results"]
    assert restored["calibration"] == before["calibration"]


def test_a_lesson_counts_in_a_compressed_bank_too(client: TestClient, name: str) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": "coreset", "size": 10})
    before = asked(client, name, [MISSED], false_alarm_rate=RATE)["results"][0]
    answer = client.post(
        f"/v1/collections/{name}/feedback", files={"files": ("m.png", MISSED)}, data={"kind": "missed"}
    ).json()
    assert answer["calibration"] == {"n": 10}
    assert asked(client, name, [MISSED], false_alarm_rate=RATE)["results"][0]["score"] > before["score"]
    undo(client, name, answer)
    assert asked(client, name, [MISSED], false_alarm_rate=RATE)["results"][0] == before


def test_a_false_alarm_joins_the_bank_and_leaves_it_again(client: TestClient, name: str) -> None:
    alarm = png(500, kind="stripes")
    before = asked(client, name, [alarm], false_alarm_rate=RATE)
    assert before["results"][0]["anomalous"] is True
    add(client, name, {"alarm": alarm}, role="unlabelled")
    given = give(client, name, kind="false_alarm", id="alarm")
    assert given["changed"] == {"stored": False, "role": {"before": "unlabelled", "after": "normal"}}
    assert given["calibration"] == {"n": 25}
    after = asked(client, name, [alarm], false_alarm_rate=RATE)
    assert after["results"][0]["anomalous"] is False
    assert after["results"][0]["neighbours"][0]["id"] == "alarm"
    assert undo(client, name, given).json()["calibration"] == {"n": 24}
    assert role(client, name, "alarm") == "unlabelled"
    assert asked(client, name, [alarm], false_alarm_rate=RATE)["results"] == before["results"]


@pytest.mark.parametrize(
    ("kind", "after"), [("false_alarm", "normal"), ("missed", "anomalous"), ("confirmed", "anomalous")]
)
@pytest.mark.parametrize("before", ["normal", "anomalous", "unlabelled", "example"])
def test_each_kind_gives_its_role_whatever_it_was(client: TestClient, kind: str, after: str, before: str) -> None:
    name = "roles"
    image = f"{kind}-{before}"
    add(client, name, {image: part(2000 + len(before) * 100 + len(kind), SPREAD)}, role=before)
    given = give(client, name, kind=kind, id=image)
    assert given["changed"]["role"] == {"before": before, "after": after}
    assert role(client, name, image) == after
    assert undo(client, name, given).status_code == 200
    assert role(client, name, image) == before


def test_a_file_that_is_stored_already_is_not_stored_twice_nor_removed(client: TestClient, name: str) -> None:
    add(client, name, {"scratch": MISSED}, role="unlabelled")
    images = client.get(f"/v1/collections/{name}").json()["images"]
    path = f"/v1/collections/{name}/feedback"
    given = client.post(path, files={"file": ("s.png", MISSED)}, data={"kind": "missed", "id": "scratch"}).json()
    assert given["changed"] == {"stored": False, "role": {"before": "unlabelled", "after": "anomalous"}}
    assert client.get(f"/v1/collections/{name}").json()["images"] == images
    assert undo(client, name, given).status_code == 200
    assert role(client, name, "scratch") == "unlabelled"
    other = client.post(path, files={"file": ("s.png", GOOD[0])}, data={"kind": "missed", "id": "scratch"})
    assert (other.status_code, other.json()["code"]) == (409, "image_exists")


def test_an_image_as_base64_is_taken_too(client: TestClient, name: str) -> None:
    given = give(client, name, kind="confirmed", images=[base64.b64encode(MISSED).decode()])
    assert given["changed"]["stored"] is True
    assert role(client, name, given["image"]) == "anomalous"


def test_a_repeat_under_one_key_changes_nothing_more(client: TestClient, name: str) -> None:
    path, key = f"/v1/collections/{name}/feedback", {"Idempotency-Key": "one"}
    first = client.post(path, files={"file": ("s.png", MISSED)}, data={"kind": "missed"}, headers=key)
    again = client.post(path, files={"file": ("s.png", MISSED)}, data={"kind": "missed"}, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert len(client.get(path).json()["feedback"]) == 1
    other = client.post(path, files={"file": ("s.png", MISSED)}, data={"kind": "confirmed"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def refused(answer: Any, *words: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (409, "changed_since")
    for word in words:
        assert word in answer.json()["detail"]


def test_later_feedback_on_the_image_is_undone_first(client: TestClient, name: str) -> None:
    first = give(client, name, kind="missed", id="n1")
    second = give(client, name, kind="false_alarm", id="n1")
    answer = undo(client, name, first)
    refused(answer, second["id"], "false_alarm")
    assert answer.json()["feedback"] == second["id"]
    assert undo(client, name, second).status_code == 200
    assert role(client, name, "n1") == "anomalous"
    assert undo(client, name, first).status_code == 200
    assert role(client, name, "n1") == "normal"


def test_later_feedback_that_changed_nothing_stands_in_the_way_too(client: TestClient, name: str) -> None:
    first = give(client, name, kind="missed", id="n1")
    second = give(client, name, kind="confirmed", id="n1")
    refused(undo(client, name, first), second["id"])


def test_what_else_stands_in_the_way_is_named(client: TestClient, name: str) -> None:
    given = {image: give(client, name, kind="missed", id=image) for image in ("n1", "n2", "n3")}
    client.patch(f"/v1/collections/{name}/images/n1", json={"role": "unlabelled"}).raise_for_status()
    client.delete(f"/v1/collections/{name}/images/n2").raise_for_status()
    add(client, name, {"n3": part(3333, SPREAD)})
    refused(undo(client, name, given["n1"]), "unlabelled")
    refused(undo(client, name, given["n2"]), "deleted")
    refused(undo(client, name, given["n3"]), "other bytes")
    assert role(client, name, "n1") == "unlabelled"
    client.patch(f"/v1/collections/{name}/images/n1", json={"role": "anomalous"}).raise_for_status()
    assert undo(client, name, given["n1"]).status_code == 200


def test_undoing_twice_changes_nothing_more(client: TestClient, name: str) -> None:
    given = give(client, name, kind="missed", id="n1")
    first = undo(client, name, given).json()
    client.patch(f"/v1/collections/{name}/images/n1", json={"role": "anomalous"}).raise_for_status()
    again = undo(client, name, given)
    assert (again.status_code, again.json()["undone_at"]) == (200, first["undone_at"])
    assert role(client, name, "n1") == "anomalous"


def test_feedback_is_listed_newest_first_in_pages(client: TestClient, name: str) -> None:
    made = [give(client, name, kind="missed", id=f"n{number}", note=f"note {number}") for number in range(5)]
    undo(client, name, made[2])
    path = f"/v1/collections/{name}/feedback"
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = client.get(path, params={"limit": 2, "cursor": cursor}).json()
        assert len(page["feedback"]) <= 2
        seen += page["feedback"]
        cursor = page["next"]
    assert [one["id"] for one in seen] == [one["id"] for one in made][::-1]
    assert [one["undone_at"] is None for one in seen] == [True, True, False, True, True]
    one = client.get(f"{path}/{made[4]['id']}").json()
    assert (one["note"], one["image"], one["kind"]) == ("note 4", "n4", "missed")


def test_what_is_not_feedback_on_one_image_is_refused(client: TestClient, name: str) -> None:
    path = f"/v1/collections/{name}/feedback"

    def code(expected: int, **request: Any) -> str:
        answer = client.post(path, **request)
        assert answer.status_code == expected, answer.text
        found: str = answer.json()["code"]
        return found

    assert code(422, json={"kind": "missed"}) == "one_image"
    two = [("files", ("a.png", GOOD[0])), ("files", ("b.png", GOOD[1]))]
    assert code(422, files=two, data={"kind": "missed"}) == "one_image"
    assert code(422, json={"kind": "liked", "id": "n1"}) == "invalid"
    assert code(422, json={"id": "n1"}) == "invalid"
    assert code(404, json={"kind": "missed", "id": "nobody"}) == "image_unknown"
    assert code(422, files={"file": ("x.png", b"not an image")}, data={"kind": "missed"}) == "image_unreadable"
    missing = client.get(f"{path}/{'0' * 32}")
    assert (missing.status_code, missing.json()["code"]) == (404, "feedback_unknown")
    assert client.get(path).json()["feedback"] == []
    assert client.get(f"/v1/collections/{name}").json()["images"] == 24, "nothing was stored on the way"


def test_feedback_belongs_to_its_collection(client: TestClient, name: str) -> None:
    given = give(client, name, kind="missed", id="n1")
    client.put("/v1/collections/elsewhere").raise_for_status()
    assert undo(client, "elsewhere", given).status_code == 404
    assert role(client, name, "n1") == "anomalous"
    assert core_of(client).shelf.get(name).counts()["anomalous"] == 1
