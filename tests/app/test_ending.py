"""The end of a server by SIGTERM: what was accepted is answered, jobs go back into the queue, and it ends well."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import JobRow
from tests.app.conftest import Serve
from tests.app.working import core_of
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
C = "/v1/collections/c"
CLIENTS = 4
FILES = 600  # more than are imported while a server ends


class Running:
    """A real server in a process of its own, and what it wrote to its log."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until = time.monotonic() + PATIENCE_S
        while not self.url:
            assert process.poll() is None and time.monotonic() < until, self.lines
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line)
                if found := re.search(r"at (http://\S+:\d+)/", line):
                    self.url = found[1]

    def ended(self) -> int:
        """The status that it ended with."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def kill(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.ended()

    def answered(self) -> dict[str, int]:
        """Ids and statuses of the requests that it has worked on, from its log."""
        lines = [json.loads(line) for line in self.lines if line.startswith("{")]
        return {line["id"]: line["status"] for line in lines if line["event"] == "request"}


@contextmanager
def running(data: Path, **settings: str) -> Iterator[Running]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ODDITY_")},
        **{f"ODDITY_{name.upper()}": value for name, value in settings.items()},
        "ODDITY_WEIGHTS": "stand-in",
        "ODDITY_IMAGE_SIZE": "32",
        "ODDITY_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    server = Running(process)
    try:
        yield server
    finally:
        server.kill()


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


def check_end(data: Path, jobs: str) -> None:
    """Load a server that also runs a job, end it, and check every promise."""
    folder = data.with_name("folder")
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.png").write_bytes(png(10**6 + number))
    with running(data, jobs=jobs, import_folders=str(folder)) as server:
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
