"""Several processes at one address: everybody is answered, one that dies is started again, and all end together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.config import STARTUP_FAILURE

from app.memory import memory_for_collections, memory_for_scorers
from app.server_processes import parts_of
from app.settings import Settings
from tests.app.running import PATIENCE_S, ROOT, Running, running
from tests.conftest import add, png

C = "/v1/collections/c"
PROCESSES = 2


def until(condition: Callable[[], object]) -> None:
    """Wait for other processes; fails when they do not come."""
    over = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < over, "waited in vain"
        time.sleep(0.02)


def servers(parent: int) -> list[psutil.Process]:
    """The processes that serve."""
    return [one for one in psutil.Process(parent).children() if one.status() != psutil.STATUS_ZOMBIE]


def asked(url: str, route: str) -> int:
    """Requests for this route, as /metrics counts them."""
    text = httpx2.get(f"{url}/metrics").raise_for_status().text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return sum(
        int(one.value) for one in samples if one.name == "oddity_requests_total" and one.labels["route"] == route
    )


def is_accepting(process: psutil.Process) -> bool:
    """Whether it has taken a connection: each stays with the process that accepted it."""
    try:
        return any(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))
    except psutil.Error:  # it has just ended
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("served") / "data", processes=str(PROCESSES), jobs="off") as server:
        yield server


def test_all_of_them_answer_and_count_together(server: Running) -> None:
    connections = [httpx2.Client(base_url=server.url, timeout=60)]
    add(connections[0], "c", {f"i{n}": png(n) for n in range(20)})

    def is_spread() -> bool:  # until the other is up, and then by chance, one takes all
        connections.append(httpx2.Client(base_url=server.url, timeout=60))
        connections[-1].get("/v1/collections").raise_for_status()
        return all(is_accepting(one) for one in servers(server.process.pid))

    try:
        until(is_spread)
        answers = [
            one.post(f"{C}/anomaly", content=png(99), headers={"content-type": "image/png"}) for one in connections
        ]
        # What one of them wrote, all know; the score hangs on nobody.
        assert len({one.raise_for_status().text for one in answers}) == 1
        # Nobody else asks for scores, while a process that starts asks for the collections. A request is counted
        # after its answer has been sent.
        until(lambda: asked(server.url, "/v1/collections/{c}/anomaly") >= len(connections))
        assert asked(server.url, "/v1/collections/{c}/anomaly") == len(connections)
        (said,) = {line for line in server.lines if " at http://" in line}
        assert server.url in said
    finally:
        for one in connections:
            one.close()


def test_one_that_is_killed_is_started_again_while_the_other_answers(server: Running) -> None:
    until(lambda: len(servers(server.process.pid)) == PROCESSES)
    for _ in range(10):
        httpx2.get(f"{server.url}/v1/collections").raise_for_status()
    dead = servers(server.process.pid)[0]
    dead.kill()
    until(lambda: dead not in servers(server.process.pid))
    while len(servers(server.process.pid)) < PROCESSES:
        httpx2.get(f"{server.url}/v1/collections").raise_for_status()
    assert asked(server.url, "/v1/collections") > 10  # what the dead one has counted is not forgotten


def test_they_end_with_their_parent_however_that_ends(tmp_path: Path) -> None:
    with running(tmp_path / "data", processes=str(PROCESSES), jobs="off") as server:
        until(lambda: len(servers(server.process.pid)) == PROCESSES)
        orphans = psutil.Process(server.process.pid).children(recursive=True)
        os.kill(server.process.pid, signal.SIGKILL)
        server.ended()
    psutil.wait_procs(orphans, PATIENCE_S)
    assert not any(one.is_running() for one in orphans)
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{server.url}/healthz")


@pytest.mark.parametrize("processes", [1, PROCESSES])
def test_where_none_can_start_the_command_says_so_and_ends(tmp_path: Path, processes: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "oddity.db").write_text("no record of ours")
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--processes", str(processes)]
    environment = {**os.environ, "ODDITY_DATA": str(tmp_path / "data"), "ODDITY_JOBS": "off"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == STARTUP_FAILURE
    assert "not a database" in ended.stderr and "Oddity serves" not in ended.stderr


def test_an_address_that_is_taken_is_told(server: Running, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", port, "--processes", "2", "--data", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in " ".join(ended.stderr.split())


def test_threads_and_memory_are_shared_out_and_one_looks_after_jobs(tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path, processes=3, threads=8, bodies_limit_bytes=3 * 2**20, decode_workers=2, jobs="process"
    )
    parts = parts_of(settings)
    assert [(one.processes, one.threads, one.decode_workers) for one in parts] == [(1, 2, 1)] * 3
    assert [one.jobs for one in parts] == ["process", "off", "off"]
    assert [one.bodies_limit_bytes for one in parts] == [2**20] * 3
    assert sum(memory_for_collections(one) for one in parts) <= memory_for_collections(settings)
    assert sum(memory_for_scorers(one) for one in parts) <= memory_for_scorers(settings)
    for threads, own, decoders in ((8, 2, 4), (2, 1, 2), (1, 1, 1)):
        more = parts_of(settings.model_copy(update={"threads": threads, "decode_workers": None}))
        assert [(one.threads, one.decode_workers) for one in more] == [(own, decoders)] * 3
