"""Probes. What makes a service not ready is in tests/contract/test_every_error.py."""

from starlette.testclient import TestClient


def test_alive_and_ready(shared: TestClient) -> None:
    assert shared.get("/healthz").json() == {"status": "ok"}
    ready = shared.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready" and set(ready.json()["checks"].values()) == {"ok"}


def test_every_answer_carries_an_id_the_callers_own_if_it_is_sane(shared: TestClient) -> None:
    first, second = (shared.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert first != second and len(first) == 32
    assert shared.get("/healthz", headers={"x-request-id": "job-7.a_b"}).headers["x-request-id"] == "job-7.a_b"
    for odd in ("a b", "x" * 65, '"><script>', ""):
        assert shared.get("/healthz", headers={"x-request-id": odd}).headers["x-request-id"] != odd
    assert "x-request-id" in shared.get("/nothing").headers


def test_scorers_are_listed(shared: TestClient) -> None:
    answer = shared.get("/v1/scorers")
    assert answer.status_code == 200 and isinstance(answer.json()["scorers"], list)
