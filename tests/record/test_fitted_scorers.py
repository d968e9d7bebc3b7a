"""Fitted scorers on both databases, and with several servers on one record."""

import threading
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.db.engine import Database
from app.db.tables import FitPartRow, FitRow, ScorerRow
from app.scorers import repository
from tests.app.working import asked, core_of, part, scores
from tests.conftest import add

pytestmark = pytest.mark.usefixtures("outside_methods")
IMAGES = {f"n{number:02}": part(number) for number in range(40)}
QUERIES = [part(1000), part(1002, scratch=10)]


def fit(client: TestClient, scorer: str, **body: Any) -> dict[str, Any]:
    answer = client.put(f"/v1/collections/c/scorers/{scorer}", json=body, params={"wait": 60})
    assert answer.status_code == 200 and answer.json()["state"] == "succeeded", answer.text
    told: dict[str, Any] = answer.json()
    return told


def count(database: Database) -> list[int]:
    with database.read() as session:
        return [session.scalar(select(func.count()).select_from(one)) or 0 for one in (ScorerRow, FitRow, FitPartRow)]


def test_every_server_scores_by_the_same_fit_at_once(client: TestClient, other: TestClient) -> None:
    add(client, "c", IMAGES)
    fit(client, "contrast")
    fit(other, "spread", params={"factor": 2.0})
    for scorer in ("contrast", "spread"):
        answers = [asked(one, "c", QUERIES, scorer=scorer) for one in (client, other)]
        assert answers[0]["results"] == answers[1]["results"]
    before = scores(client, "c", QUERIES, scorer="spread")
    fit(client, "spread", params={"factor": 4.0})
    assert scores(other, "c", QUERIES, scorer="spread") == pytest.approx([2 * one for one in before], rel=1e-6)
    assert [
        one.get("/v1/collections/c/scorers/spread").json()["fit"]["params"]["factor"] for one in (client, other)
    ] == [4.0, 4.0]
    other.delete("/v1/collections/c/scorers/spread").raise_for_status()
    assert client.post("/v1/collections/c/anomaly?scorer=spread", json={"ids": ["n01"]}).status_code == 409
    # Another fit is loaded: what others have deleted since leaves the memory.
    core_of(client).fitted.forget([core_of(client).fitted.serving(core_of(client).shelf.get("c").id, "contrast").id])
    scores(client, "c", QUERIES, scorer="contrast")
    assert core_of(client).fitted.memory()[0] == 1


def test_a_refit_replaces_and_deleting_leaves_nothing(client: TestClient, database: Database, monkeypatch) -> None:
    monkeypatch.setattr(repository, "PART_BYTES", 1000)  # so that a small state has many parts
    add(client, "c", IMAGES)
    first = fit(client, "spread")["result"]
    told = scores(client, "c", QUERIES, scorer="spread")
    parts = -(-first["bytes"] // 1000)
    assert parts > 2 and count(database) == [1, 1, parts]
    core_of(client).fitted.forget(list(core_of(client).fitted._kept))
    assert scores(client, "c", QUERIES, scorer="spread") == told
    assert fit(client, "spread")["result"]["sha256"] == first["sha256"]
    assert count(database) == [1, 1, parts]
    client.delete("/v1/collections/c").raise_for_status()
    assert count(database) == [0, 0, 0]


def test_two_servers_asked_for_the_same_name_at_once(client: TestClient, other: TestClient, database: Database) -> None:
    add(client, "c", IMAGES)
    told: list[int] = []

    def ask(one: TestClient, factor: float) -> None:
        answer = one.put("/v1/collections/c/scorers/spread", json={"params": {"factor": factor}}, params={"wait": 60})
        told.append(answer.status_code)

    threads = [
        threading.Thread(target=ask, args=(one, factor)) for factor in (2.0, 3.0, 5.0) for one in (client, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(told) == {200}
    assert count(database)[:2] == [1, 1]
    shown = client.get("/v1/collections/c/scorers/spread").json()
    assert shown["state"] == "ready" and shown["fit"]["params"] == shown["params"]  # the last one asked for serves
