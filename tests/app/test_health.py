"""Probes. What makes a service not ready is in tests/contract/test_every_error.py."""

import os
import signal
import sys
import time

from sqlalchemy import text
from starlette.testclient import TestClient

from app.jobs.process import WorkerProcess
from app.kept_process import FAILING_S
from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.working import core_of
from tests.contract.problem_shape import problem_of


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


def test_backbones_are_listed_with_the_cards_of_their_weights(shared: TestClient) -> None:
    found = {one["id"]: one for one in shared.get("/v1/backbones").json()["backbones"]}
    assert found["resnet50"]["stage_widths"] == [256, 512, 1024, 2048]
    assert found["resnet50"]["default_weights"] == "stand-in" and found["resnet50"]["embedded"] is None
    assert found["resnet50"]["torchvision"]["is_here"] is False
    shipped = found["resnet18"]["embedded"]
    assert found["resnet18"]["default_weights"] == "embedded"
    assert "research" in shipped["terms"] and shipped["figures"] and shipped["weaknesses"]


def test_not_ready_on_tables_of_another_version(serve: Serve) -> None:
    with serve() as client:
        with core_of(client).database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        body = problem_of(client.get("/readyz"), 503, "not_ready")
        assert "0001" in body["checks"]["record"] and body["checks"]["embedding"] == "ok"


def test_not_ready_without_room_or_a_place_to_write(serve: Serve, settings: Settings) -> None:
    with serve(disk_reserve_bytes=2**44) as client:
        assert "bytes are free" in problem_of(client.get("/readyz"), 503, "not_ready")["checks"]["disk"]
    with serve() as client:
        settings.data.rename(settings.data.with_name("away"))
        assert "cannot be written" in problem_of(client.get("/readyz"), 503, "not_ready")["checks"]["disk"]
        settings.data.with_name("away").rename(settings.data)


def test_a_worker_that_does_not_stay_alive_is_a_fault(settings: Settings) -> None:
    now = 0.0
    worker = WorkerProcess(settings, [sys.executable, "-S", "-c", "raise SystemExit(3)"], 0.001, lambda: now)
    assert worker.fault() is None
    worker.start()
    try:
        for step in range(4):
            begun = worker.restarts
            while worker.restarts < begun + 2:
                time.sleep(0.001)
            assert (worker.fault() is None) == (now < FAILING_S), step
            now += 20.0
        assert "code 3" in (worker.fault() or "")
    finally:
        worker.stop()


def test_a_worker_that_died_once_is_none(settings: Settings) -> None:
    now = 0.0
    worker = WorkerProcess(settings, [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], 0.001, lambda: now)
    worker.start()
    try:
        while (pid := worker.pid) is None:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        while worker.restarts < 1 or worker.pid is None:
            time.sleep(0.001)
        assert worker.fault() is None
        now = FAILING_S + 1
        assert worker.fault() is None
    finally:
        worker.stop()
