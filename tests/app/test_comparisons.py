"""Comparisons and ratings: kept durably, listed, undone, and asked for without repeating a question."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.feedback import asking
from app.main import create_app
from app.settings import Settings
from tests.app.working import core_of, part
from tests.conftest import add
from tests.contract.problem_shape import problem_of

IMAGES = {f"n{number:02}": part(number) for number in range(24)}
PATH = "/v1/collections/c/feedback"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for name in ("c", "few", "gone", "again"):
            add(client, name, IMAGES if name != "few" else {"only": part(0)})
        yield client


@pytest.fixture(autouse=True)
def nothing_was_said(client: TestClient) -> Iterator[None]:
    yield
    for one in client.get(PATH).json()["feedback"]:
        client.delete(f"{PATH}/{one['id']}").raise_for_status()


def give(client: TestClient, path: str = PATH, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    given: dict[str, Any] = answer.json()
    return given


def asked(client: TestClient, path: str = PATH, **parameters: Any) -> dict[str, Any]:
    answer = client.get(f"{path}/next-pair", params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_comparison_is_kept_listed_and_taken_back_and_changes_no_role(client: TestClient) -> None:
    before = client.get("/v1/collections/c").json()
    given = give(client, kind="pair", left="n00", right="n01", answer="left", rater="anna", note="rim")
    assert {name: given[name] for name in ("left", "right", "answer", "rater", "note", "undone_at")} == {
        "left": "n00",
        "right": "n01",
        "answer": "left",
        "rater": "anna",
        "note": "rim",
        "undone_at": None,
    }
    shown = client.get(f"{PATH}/{given['id']}").json()
    assert shown == {name: value for name, value in given.items() if name != "scorers"}
    assert client.get(PATH).json()["feedback"][0] == shown
    assert client.get("/v1/collections/c").json() == before
    assert asked(client)["answers"]["now"] == 1
    undone = client.delete(f"{PATH}/{given['id']}").json()
    assert undone["undone_at"] is not None
    assert client.delete(f"{PATH}/{given['id']}").json() == undone, "undoing twice changes nothing more"
    assert asked(client)["answers"]["now"] == 0


def test_a_rating_is_kept_with_its_rater(client: TestClient) -> None:
    given = give(client, kind="rating", id="n00", value=3.5, rater="anna@example.org")
    assert (given["image"], given["value"], given["rater"]) == ("n00", 3.5, "anna@example.org")
    assert client.get(f"{PATH}/{given['id']}").json()["value"] == 3.5


def test_neither_stands_in_the_way_of_other_feedback(client: TestClient) -> None:
    missed = give(client, kind="missed", id="n05")
    give(client, kind="pair", left="n05", right="n06", answer="left")
    give(client, kind="rating", id="n05", value=1, rater="bob")
    assert client.delete(f"{PATH}/{missed['id']}").status_code == 200
    assert client.get("/v1/collections/c/images/n05").json()["role"] == "normal"


def test_a_repeat_under_one_key_is_kept_once(client: TestClient) -> None:
    body = {"kind": "pair", "left": "n00", "right": "n01", "answer": "same"}
    path = "/v1/collections/again/feedback"
    first, again = (client.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert len(client.get(path).json()["feedback"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"kind": "pair", "left": "n00", "right": "n01"}, 422, "invalid", "needs `answer`"),
        ({"kind": "pair", "left": "n00", "right": "n00", "answer": "left"}, 422, "invalid", "two images"),
        ({"kind": "pair", "left": "n00", "right": "n01", "answer": "both"}, 422, "invalid", "answer"),
        ({"kind": "pair", "left": "n00", "right": "x", "answer": "left"}, 404, "image_unknown", "x"),
        (
            {"kind": "pair", "left": "n00", "right": "n01", "answer": "left", "id": "n00"},
            422,
            "invalid",
            "takes no `id`",
        ),
        ({"kind": "rating", "id": "n00", "value": 1}, 422, "invalid", "needs `rater`"),
        ({"kind": "rating", "id": "n00", "value": 1e9, "rater": "a"}, 422, "invalid", "value"),
        ({"kind": "rating", "id": "x", "value": 1, "rater": "a"}, 404, "image_unknown", "x"),
        ({"kind": "missed", "id": "n00", "answer": "left"}, 422, "invalid", "takes no `answer`"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    client: TestClient, body: dict[str, Any], status: int, code: str, words: str
) -> None:
    problem = problem_of(client.post(PATH, json=body), status, code)
    assert words in problem["detail"]
    assert all(one["undone_at"] for one in client.get(PATH).json()["feedback"]), "nothing was kept"


def test_a_file_is_no_part_of_a_comparison(client: TestClient) -> None:
    answer = client.post(
        PATH, files={"files": ("a.png", part(0))}, data={"kind": "rating", "id": "n00", "value": "1", "rater": "a"}
    )
    problem_of(answer, 422, "no_file")


def test_a_question_comes_until_it_is_answered_and_never_again(client: TestClient) -> None:
    seen = set()
    for number in range(12):
        told = asked(client)
        assert asked(client) == told, "the same question until it is answered"
        assert (told["scorer"], told["chosen_by"], told["answers"]) == (None, "chance", {"now": number, "fitted": None})
        (pair,) = told["pairs"]
        assert frozenset((pair["left"], pair["right"])) not in seen
        seen.add(frozenset((pair["left"], pair["right"])))
        give(client, kind="pair", left=pair["left"], right=pair["right"], answer="cannot_say")
    several = asked(client, n=5)["pairs"]
    assert len({one for pair in several for one in (pair["left"], pair["right"])}) == 10


def test_the_work_is_bounded_and_raters_get_other_candidates(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = asked(client, n=20)
    # Ten of the bank are kept for calibration: no answer about them is learnt from, so none is asked for.
    assert everything["candidates"] == len(IMAGES) - 10
    monkeypatch.setattr(asking, "CANDIDATES_MAX", 6)
    drawn = [asked(client, rater=f"rater {number}", n=3) for number in range(6)]
    assert {one["candidates"] for one in drawn} == {6}
    assert len({str(one["pairs"]) for one in drawn}) > 1


def test_half_of_the_candidates_are_not_normal_where_there_are_so_many(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = core_of(client).shelf.get("gone")
    for number in range(12):
        client.patch(f"/v1/collections/gone/images/n{number:02}", json={"role": "unlabelled"}).raise_for_status()
    monkeypatch.setattr(asking, "CANDIDATES_MAX", 8)
    nobody = asking._aside(state, 0)[:0]
    drawn = asking._candidates(state, nobody, "now")
    assert sum(state.entries[pk].role == "normal" for pk in drawn.tolist()) == 4
    assert drawn.tolist() == sorted(set(drawn.tolist())) and drawn.size == 8


def test_what_cannot_be_asked_is_refused(client: TestClient) -> None:
    problem_of(client.get("/v1/collections/few/feedback/next-pair"), 409, "too_few_images")
    problem_of(client.get(f"{PATH}/next-pair", params={"scorer": "mine"}), 409, "scorer_not_fitted")
    problem_of(client.get(f"{PATH}/next-pair", params={"n": 0}), 422, "invalid")
    problem_of(client.get("/v1/collections/nowhere/feedback/next-pair"), 404, "collection_unknown")
