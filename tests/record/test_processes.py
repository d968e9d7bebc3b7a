"""Two server processes on one record: what one has written the other knows at its next request."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import png
from tests.record.conftest import PostgreSQL

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
_names = (f"c{number}" for number in itertools.count())


class Mother:
    """Starts servers of one data folder and one record within a second each; see `tests.faults.server`."""

    def __init__(self, data: Path, database_url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", str(data)],
            cwd=ROOT,
            env={**os.environ, "ODDITY_DATABASE_URL": database_url, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, count: int) -> list["Server"]:
        """So many servers, started at the same moment."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("start\n" * count)
        self._process.stdin.flush()
        said = [self._process.stdout.readline().split() for _ in range(count)]
        servers = [Server(int(pid), f"http://127.0.0.1:{port}") for pid, port in said]
        for one in servers:
            one.http.get("/healthz").raise_for_status()  # waits in the socket's queue
        return servers

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(PATIENCE_S)


class Server:
    """A server in a process of its own."""

    def __init__(self, pid: int, url: str) -> None:
        self._pid = pid
        self.http = httpx2.Client(base_url=url, timeout=PATIENCE_S)

    def end(self, how: signal.Signals = signal.SIGTERM, *, is_client_closed: bool = True) -> None:
        """Send a signal and wait until the process is gone; the client stays open for a thread that still sends."""
        os.kill(self._pid, how)
        for _ in range(int(PATIENCE_S / 0.02)):
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                if is_client_closed:
                    self.http.close()
                return
            time.sleep(0.02)
        pytest.fail(f"process {self._pid} does not end")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def mother(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mother]:
    """Of servers on a data folder and a record that nobody has migrated yet."""
    folder = tmp_path_factory.mktemp("processes")
    if request.param == "sqlite":
        mother = Mother(folder, f"sqlite:///{folder / 'record.db'}")
        yield mother
        mother.close()
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"processes_{os.getpid()}"
    mother = Mother(folder, server.create(name, template="template0"))
    yield mother
    mother.close()
    server.drop(name)


@pytest.fixture(scope="module")
def pair(mother: Mother) -> Iterator[tuple[Server, Server]]:
    """Two servers, started at the same moment on a record without tables."""
    first, second = mother.start(2)
    yield first, second
    first.end()
    second.end()


@pytest.fixture
def collection(pair: tuple[Server, Server]) -> str:
    path = f"/v1/collections/{next(_names)}"
    pair[0].http.put(path).raise_for_status()
    return path


def post(server: Server, collection: str, images: dict[str, bytes], **more: Any) -> httpx2.Response:
    return server.http.post(
        f"{collection}/images",
        files=[("files", (f"{name}.png", data)) for name, data in images.items()],
        data={"items": json.dumps([{"id": name} for name in images])},
        **more,
    )


def nearest(server: Server, collection: str, image: bytes, **parameters: Any) -> str:
    answer = server.http.post(
        f"{collection}/query", files=[("files", ("q.png", image))], params={"k": 1, **parameters}
    ).raise_for_status()
    return answer.json()["results"][0][0]["id"]


def test_a_write_through_one_is_found_through_the_other_at_once(pair: tuple[Server, Server], collection: str) -> None:
    first, second = pair
    post(first, collection, {"a": png(1), "b": png(2)}).raise_for_status()
    assert nearest(second, collection, png(2)) == "b"
    for turn in range(10):
        writer, reader = pair if turn % 2 else pair[::-1]
        sequence = post(writer, collection, {f"i{turn}": png(10 + turn)}).json()["sequence"]
        assert nearest(reader, collection, png(10 + turn)) == f"i{turn}"
        assert nearest(reader, collection, png(10 + turn), after=sequence) == f"i{turn}"
        writer.http.delete(f"{collection}/images/i{turn}").raise_for_status()
        assert nearest(reader, collection, png(10 + turn)) in ("a", "b")


def test_both_give_the_same_score_to_the_bit_whoever_was_written_to(
    pair: tuple[Server, Server], collection: str
) -> None:
    first, second = pair
    for turn in range(6):
        post(pair[turn % 2], collection, {f"n{turn}-{n}": png(100 * turn + n) for n in range(4)}).raise_for_status()
    second.http.patch(f"{collection}/images/n0-0", json={"role": "anomalous"}).raise_for_status()
    files = [("files", (f"{n}.png", png(5000 + n, kind="stripes"))) for n in range(5)]
    answers = [one.http.post(f"{collection}/anomaly", files=files).raise_for_status().json() for one in (first, second)]
    assert answers[0] == answers[1]
    assert answers[0]["calibration"]["n"] == 23


def test_two_processes_write_one_collection_and_neither_loses_anything(
    pair: tuple[Server, Server], collection: str
) -> None:
    def write(worker: int) -> list[int]:
        server = pair[worker % 2]
        return [
            post(server, collection, {f"w{worker}-{turn}": png(1000 * worker + turn)})
            .raise_for_status()
            .json()["sequence"]
            for turn in range(6)
        ]

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for done in pool.map(write, range(8)) for number in done]
    assert sorted(numbers) == list(range(1, 49))
    for server in pair:
        shown = server.http.get(collection, params={"after": 48}).json()
        assert (shown["sequence"], shown["images"]) == (48, 48)
        assert nearest(server, collection, png(3004)) == "w3-4"
        assert nearest(server, collection, png(4005)) == "w4-5"


def test_of_two_processes_that_change_one_revision_one_wins(pair: tuple[Server, Server], collection: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        for turn in range(6):
            tag = pair[0].http.get(collection).headers["etag"]

            def change(place: int, tag: str = tag, turn: int = turn) -> int:
                given = {"neighbours": 10 + 2 * turn + place}
                answer = pair[place].http.patch(collection, json=given, headers={"If-Match": tag})
                return answer.status_code

            assert sorted(pool.map(change, (0, 1))) == [200, 412]


def test_a_process_killed_while_it_writes_takes_nothing_acknowledged_with_it(mother: Mother) -> None:
    """Each POST brings a pair: an odd number would be half a write, a missing one a broken promise."""
    killed, left = mother.start(2)
    collection = f"/v1/collections/{next(_names)}"
    left.http.put(collection).raise_for_status()
    acknowledged: list[str] = []

    def write() -> None:
        for turn in range(10_000):
            try:
                answer = post(killed, collection, {f"k{turn}-{half}": png(10 * turn + half) for half in (0, 1)})
            except httpx2.TransportError:
                return
            if answer.status_code == 201:
                acknowledged.append(f"k{turn}-0")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while len(acknowledged) < 5:
            assert not writing.done()
        killed.end(signal.SIGKILL, is_client_closed=False)
        writing.result(PATIENCE_S)
    killed.http.close()
    there = {
        one["id"]
        for one in left.http.get(f"{collection}/images", params={"limit": 1000}).raise_for_status().json()["images"]
    }
    assert set(acknowledged) <= there
    assert len(there) % 2 == 0
    assert post(left, collection, {"next": png(7)}).status_code == 201, "the dead one's locks are gone"
    last = acknowledged[-1]
    assert nearest(left, collection, png(10 * int(last[1:-2]))) == last
    left.end()
