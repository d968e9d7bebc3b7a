"""The end of a server by SIGTERM: what was accepted is answered, jobs go back into the queue, and it ends well."""

import re
import signal
import threading
import time
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import JobRow
from tests.app.conftest import Serve
from tests.app.running import running
from tests.app.working import core_of
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"
CLIENTS = 4
FILES = 600  # more than are imported while a server ends


def load(url: str, number: int, got: dict[str, int], failed: list[str], is_over: threading.Event) -> None:
    """Send requests one after the other, each with an id, until told to stop."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        for turn in range(10_000):
            request_id = f"{number}-{turn}"
            try:
                answer = client.post(
                    f"{C}/anomaly",
                    content=png(turn),
                    headers={"content-type": "image/png", "x-request-id": request_id},
                )
                got[answer.headers["x-request-id"]] = answer.status_code
            except httpx2.HTTPError:
                failed.append(request_id)
            if is_over.is_set():
                return


def check_end(data: Path, jobs: str, processes: int = 1) -> None:
    """Load a server that also runs a job, end it, and check every promise."""
    folder = data.with_name("folder")
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.png").write_bytes(png(10**6 + number))
    with running(data, jobs=jobs, import_folders=str(folder), processes=str(processes)) as server:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            add(client, "c", {f"i{n}": png(n) for n in range(40)})
            got: dict[str, int] = {}
            failed: list[str] = []
            is_over = threading.Event()
            threads = [
                threading.Thread(target=load, args=(server.url, number, got, failed, is_over))
                for number in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            while len(got) < 5 * CLIENTS:
                assert server.process.poll() is None
                time.sleep(0.01)
            job = client.post(f"{C}/images/import", json={"folder": str(folder)}).raise_for_status().json()
            while not client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()["progress"]["done"]:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            is_over.set()
            for thread in threads:
                thread.join()
        assert server.ended() == 0
        answered = server.answered()
    ours = {request_id: status for request_id, status in answered.items() if re.fullmatch(r"\d+-\d+", request_id)}
    assert ours == got and set(got.values()) == {200}  # whatever it took on, its caller has
    assert not set(failed) & set(ours)
    database = Database(f"sqlite:///{data / 'oddity.db'}")
    with database.read() as session:
        (row,) = session.scalars(select(JobRow))
    database.close()
    assert (row.state, row.lease_owner, row.attempts) == ("queued", None, 0)


def test_what_was_accepted_is_answered_and_a_job_handed_back(tmp_path: Path) -> None:
    check_end(tmp_path / "data", "thread")


def test_by_several_processes_too(tmp_path: Path) -> None:
    check_end(tmp_path / "data", "thread", processes=2)


@pytest.mark.slow
def test_with_a_worker_process_too(tmp_path: Path) -> None:
    check_end(tmp_path / "data", "process")


def test_an_ending_server_says_so_and_nobody_waits(serve: Serve) -> None:
    with serve() as client:
        add(client, "c", {"a": png(1)})
        core = core_of(client)
        job = client.post(f"{C}/calibrate", params={"wait": 60}).json()
        assert job["state"] == "succeeded"
        client.app.state.end_soon()  # type: ignore[attr-defined]
        body = problem_of(client.get("/readyz"), 503, "not_ready")
        assert body["checks"]["service"] == "is ending" and body["checks"]["record"] == "ok"
        assert client.get("/healthz").headers["connection"] == "close"  # go on elsewhere
        waited = client.post(f"{C}/calibrate", params={"wait": 60})
        assert (waited.status_code, waited.json()["state"]) == (202, "queued")
        with client.stream("GET", f"/v1/jobs/{waited.json()['id']}/events") as events:
            assert "event: end" not in events.read().decode()
        assert core.observing.is_ending
