"""Comparisons over HTTP: answers are learnt from, the next question is the ensemble's, deletions and undoing count."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import embedders_are_kept
from tests.app.working import asked, finished, part, scores
from tests.conftest import add
from tests.contract.problem_shape import problem_of

__all__ = ["embedders_are_kept"]  # a fixture of every test
PATH = "/v1/collections/c/feedback"
BANK = {f"n{number:02}": part(number) for number in range(30)}
DEFECTS = {f"d{size:02}": part(100 + size, scratch=size) for size in range(2, 12)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with a bank, larger and larger defects, and somebody's word that the larger is the stranger."""
    settings = Settings(data=tmp_path_factory.mktemp("served"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", BANK)
        add(client, "c", DEFECTS, role="unlabelled")
        yield client


def fit(client: TestClient, collection: str = "c", **params: Any) -> Any:
    body = {"params": {"components": 5, **params}}
    return client.put(f"/v1/collections/{collection}/scorers/preferences", json=body, params={"wait": 60})


def compare(client: TestClient, left: str, right: str, collection: str = "c") -> dict[str, Any]:
    answer = "left" if left > right else "right"  # d11 > d02 > every n
    body = {"kind": "pair", "left": left, "right": right, "answer": answer}
    given = client.post(f"/v1/collections/{collection}/feedback", json=body)
    assert given.status_code == 201, given.text
    told: dict[str, Any] = given.json()
    return told


def test_answers_are_learnt_and_the_ensemble_asks_the_next_question(served: TestClient) -> None:
    refused = problem_of(fit(served), 409, "scorer_needs")
    assert refused["missing"] == ["pairs"] and "POST /feedback" in refused["detail"]

    names = sorted(DEFECTS)
    given = [compare(served, one, other) for one in names for other in names if one < other and (int(one[1:]) % 2)]
    assert "preferences" in given[0]["scorers"]
    for number, name in enumerate(names):
        compare(served, f"n{number:02}", name)
    job = fit(served).json()
    assert job["state"] == "succeeded", job
    told = scores(served, "c", list(DEFECTS.values()), scorer="preferences")
    assert told[-1] > told[0] and sum(later > first for first, later in pairwise(told)) >= 6
    answer = asked(served, "c", [part(100)], scorer="preferences")["results"][0]
    assert set(answer["details"]["terms"]) == {"raw", "spread"}

    state = served.get("/v1/collections/c/scorers/preferences").json()
    assert state["fit"]["stale"]["answers"] == 0
    said = served.get(f"{PATH}/next-pair").json()
    assert (said["scorer"], said["chosen_by"]) == ("preferences", "disagreement")
    assert said["answers"]["now"] == said["answers"]["fitted"] == len(given) + len(names)
    (pair,) = said["pairs"]
    assert pair["disagreement"] > 0
    several = served.get(f"{PATH}/next-pair", params={"n": 4, "scorer": "preferences"}).json()["pairs"]
    assert several[0] == pair
    assert [one["disagreement"] for one in several] == sorted((one["disagreement"] for one in several), reverse=True)

    compare(served, pair["left"], pair["right"])
    following = served.get(f"{PATH}/next-pair").json()
    assert {following["pairs"][0]["left"], following["pairs"][0]["right"]} != {pair["left"], pair["right"]}
    assert served.get("/v1/collections/c/scorers/preferences").json()["fit"]["stale"]["answers"] == 1


def test_an_answer_counts_while_its_images_are_what_was_seen(served: TestClient) -> None:
    add(served, "e", {**BANK, **DEFECTS})
    made = [compare(served, f"d{size:02}", f"d{size - 1:02}", "e") for size in range(3, 12)]
    served.delete(f"/v1/collections/e/feedback/{made[0]['id']}").raise_for_status()
    served.delete("/v1/collections/e/images/d11").raise_for_status()
    add(served, "e", {"d10": part(999, scratch=10)})
    for size in range(4, 8):
        served.delete(f"/v1/collections/e/feedback/{made[size - 3]['id']}").raise_for_status()
    # Of nine answers five were taken back, and three name an image that is gone or another now: one is left.
    problem = fit(served, "e").json()["problem"]
    assert problem["code"] == "fit_refused" and "at least 5" in problem["detail"]


def test_answers_travel_in_a_snapshot(served: TestClient) -> None:
    add(served, "s", {name: BANK[name] for name in ("n00", "n01")})
    served.post(
        "/v1/collections/s/feedback",
        json={"kind": "pair", "left": "n00", "right": "n01", "answer": "same", "rater": "anna"},
    ).raise_for_status()
    served.post(
        "/v1/collections/s/feedback", json={"kind": "rating", "id": "n00", "value": 2, "rater": "bob"}
    ).raise_for_status()
    made = finished(served, "/v1/collections/s/snapshots")
    finished(served, "/v1/collections/t/restore", {"snapshot": made["snapshot"]})
    before, after = (served.get(f"/v1/collections/{name}/feedback").json()["feedback"] for name in ("s", "t"))
    for one in (*before, *after):
        del one["id"]
    assert after == before
