"""PostgreSQL goes down and comes back while servers work: requests fail for a while, nothing acknowledged is lost."""

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sized
from pathlib import Path

import pgserver
import psutil
import pytest

from tests.conftest import png
from tests.record.test_processes import PATIENCE_S, Mother, nearest, post

ROUNDS = 3


class Restartable:
    """A PostgreSQL server that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = pgserver.get_server(folder, cleanup_mode="stop")
        self.url = self._server.get_uri()

    def kill(self) -> None:
        """kill -9 to the whole server: no transaction ends, no page is written."""
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # they end by themselves when one of them is killed
                one.send_signal(signal.SIGKILL)
        _, left = psutil.wait_procs(processes, 30)
        assert not left

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


@pytest.fixture
def database() -> Iterator[Restartable]:
    folder = Path(tempfile.mkdtemp(prefix="oddity-pg-"))
    server = Restartable(folder / "data")
    yield server
    server.close()
    shutil.rmtree(folder)


def wait_for_more(things: Sized, count: int) -> None:
    """Until others have added so many."""
    before = len(things)
    for _ in range(int(PATIENCE_S / 0.05)):
        if len(things) >= before + count:
            return
        time.sleep(0.05)
    pytest.fail(f"no {count} more came to {before}")


@pytest.mark.slow
def test_a_database_killed_under_load_loses_nothing_acknowledged(database: Restartable, tmp_path: Path) -> None:
    mother = Mother(tmp_path, database.url)
    servers = mother.start(2)
    collection = "/v1/collections/c"
    servers[0].http.put(collection).raise_for_status()
    acknowledged: dict[str, int] = {}
    refused: list[tuple[int, str]] = []
    ended = threading.Event()

    def write(worker: int) -> None:
        server = servers[worker % 2]
        turn = 0
        while not ended.is_set():
            turn += 1
            seed = 1_000_000 * worker + 10 * turn
            pair = {f"w{worker}-{turn}-{half}": png(seed + half) for half in (0, 1)}
            answer = post(server, collection, pair)
            if answer.status_code == 201:
                acknowledged[f"w{worker}-{turn}-0"] = seed
            else:
                refused.append((answer.status_code, answer.json()["code"]))

    workers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in workers:
        one.start()
    try:
        for _ in range(ROUNDS):
            wait_for_more(acknowledged, 8)
            database.kill()
            wait_for_more(refused, 4)
            database.start()
        wait_for_more(acknowledged, 8)
    finally:
        ended.set()
        for one in workers:
            one.join(60)

    assert {code for _, code in refused} == {"record_unavailable"}, "never an error of ours"
    assert {status for status, _ in refused} == {503}
    there: set[str] = set()
    cursor: str | None = ""
    while cursor is not None:
        page = servers[1].http.get(f"{collection}/images", params={"limit": 1000, "cursor": cursor})
        there |= {one["id"] for one in page.raise_for_status().json()["images"]}
        cursor = page.json()["next"]
    assert set(acknowledged) <= there
    assert len(there) % 2 == 0, "each POST brings a pair"
    for server in servers:
        assert server.http.get(collection).json()["images"] == len(there)
        for name, seed in list(acknowledged.items())[:: max(1, len(acknowledged) // 10)]:
            assert nearest(server, collection, png(seed)) == name
    for server in servers:
        server.end()
    mother.close()
