"""Jobs in a process of their own: woken by the server, started again when it dies, gone when the server is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from app.jobs.process import WorkerProcess
from app.main import create_app, open_core
from app.settings import Settings
from app.worker import worker_settings
from tests.app.working import finished
from tests.conftest import add, png

PATIENCE_S = 60.0
ROOT = Path(__file__).resolve().parents[2]
# Stands for a worker: notes its start, the settings it got and each wake, and ends with its input.
NOTING = """
import os, sys
path = sys.argv[1]
def note(text):
    with open(path, "a") as file:
        file.write(text + "\\n")
note(f"began {os.getpid()}")
line = b""
while not line.endswith(b"\\n"):
    line += os.read(0, 1)
note("settings " + line.decode().strip())
while data := os.read(0, 1):
    note("woken")
note("ended")
"""


def until(condition: Callable[[], object]) -> None:
    """Wait for another process; fails when it does not come."""
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


@contextmanager
def kept(settings: Settings, script: str, path: Path, pause_s: float = 0.01) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(settings, [sys.executable, "-S", "-c", script, str(path)], pause_s)
    path.touch()
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def notes(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_worker_gets_the_settings_and_every_wake_and_ends_with_the_pipe(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, database_url="postgresql://me:sesame@host/db", import_folders=(tmp_path,))
    path = tmp_path / "notes"
    with kept(settings, NOTING, path) as worker:
        until(lambda: len(notes(path)) == 2)
        worker.wake()
        until(lambda: "woken" in notes(path))
        assert worker.stop()
    given = json.loads(notes(path)[1].removeprefix("settings "))
    assert Settings(**given) == settings
    assert "sesame" in given["database_url"] and "sesame" not in settings.model_dump_json()
    assert notes(path)[-1] == "ended"


def test_a_worker_that_dies_is_started_again(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    with kept(settings, NOTING, path) as worker:
        for deaths in range(1, 4):
            until(lambda deaths=deaths: sum(line.startswith("began") for line in notes(path)) == deaths)
            until(lambda: worker.pid is not None)
            os.kill(int(notes(path)[-1].split()[1]) if "began" in notes(path)[-1] else worker.pid, signal.SIGKILL)
        until(lambda: sum(line.startswith("settings") for line in notes(path)) >= 1 and worker.pid is not None)


def test_one_that_never_starts_well_is_tried_ever_later(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And its death between two wakes harms nobody."""
    path = tmp_path / "notes"
    with kept(settings, "import sys; open(sys.argv[1], 'a').write('x\\n')", path, 0.01) as worker:
        while len(notes(path)) < 5:
            worker.wake()
            time.sleep(0.001)
    pauses = [one.args[2] for one in caplog.records if "started again" in one.message and one.args]
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]


def test_one_that_does_not_end_is_killed(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    stubborn = "import sys, time; open(sys.argv[1], 'w').write('began\\n'); time.sleep(600)"
    with kept(settings, stubborn, path) as worker:
        until(lambda: notes(path))
        pid = worker.pid
        assert not worker.stop(0.05)
    assert not psutil.pid_exists(pid)
    assert worker.pid is None


def test_wakes_that_nobody_reads_hold_nobody_up(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    deaf = "import sys, time; open(sys.argv[1], 'w').write('began\\n'); time.sleep(600)"
    with kept(settings, deaf, path) as worker:
        until(lambda: notes(path))
        for _ in range(70_000):  # a pipe holds 65,536 bytes
            worker.wake()
        worker.stop(0.05)


def test_a_worker_takes_few_threads(settings: Settings) -> None:
    assert worker_settings(settings.model_copy(update={"job_threads": 3})).threads == 3
    assert worker_settings(settings).threads == max(1, len(os.sched_getaffinity(0)) // 2)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with a real worker beside it."""
    data = tmp_path_factory.mktemp("served")
    settings = Settings(
        data=data, weights="stand-in", image_size=32, threads=1, jobs="process", log_level="warning", job_niceness=11
    )
    with TestClient(create_app(settings)) as client:
        yield client


def worker_of(client: TestClient) -> psutil.Process:
    """The worker of the server that runs in this process."""
    assert client.app is not None
    (child,) = [one for one in psutil.Process().children() if "--beside-server" in one.cmdline()]
    return child


def test_a_worker_beside_the_server_does_its_jobs_and_stands_back(served: TestClient) -> None:
    add(served, "c", {f"n{number}": png(number) for number in range(12)})
    path = "/v1/collections/c/clean"
    assert finished(served, path, {"fraction": 0.25})["dropped"]
    assert served.get("/v1/collections/c").json()["roles"]["normal"] == 9, "this process follows what the other did"
    assert worker_of(served).nice() == min(19, psutil.Process().nice() + 11)


ALONE = """
import sys, threading
from pathlib import Path
from app.jobs.process import WorkerProcess
from app.settings import Settings
worker = WorkerProcess(Settings(data=Path(sys.argv[1]), weights="stand-in", image_size=32, jobs="process"))
worker.start()
print("started", flush=True)
threading.Event().wait()
"""


def test_it_does_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        assert server.stdout.readline() == "started\n"
        until(lambda: any("worker begins" in line for line in [server.stderr.readline()]))
        (worker,) = psutil.Process(server.pid).children()
        server.kill()
        worker.wait(PATIENCE_S)
        assert "worker ends" in server.stderr.read()


def test_it_runs_alone_until_it_is_told_to_end(settings: Settings) -> None:
    """`oddity worker`, as an operator starts it."""
    core = open_core(settings.model_copy(update={"jobs": "off"}))
    environment = {**os.environ, "ODDITY_WEIGHTS": "stand-in", "ODDITY_IMAGE_SIZE": "32"}
    command = [sys.executable, "-m", "app.cli", "worker", "--data", str(settings.data)]
    with (
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as worker,
        TestClient(create_app(settings.model_copy(update={"jobs": "off"}))) as client,
    ):
        add(client, "c", {f"n{number}": png(number) for number in range(4)})
        assert finished(client, "/v1/collections/c/calibrate")["n"] == 4
        worker.terminate()
        assert worker.wait(PATIENCE_S) == 0
    core.database.close()


def test_with_jobs_off_nobody_takes_them(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"jobs": "off"}))) as client:
        client.put("/v1/collections/c")
        answer = client.post("/v1/collections/c/calibrate", params={"wait": 0.3})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert not [one for one in psutil.Process().children() if str(settings.data) in " ".join(one.cmdline())]
