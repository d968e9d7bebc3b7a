"""kill -9 while images are loaded: what was acknowledged is there, and nothing is there by half."""

import hashlib
import os
import random
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
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.conftest import png

ROOT = Path(__file__).resolve().parent.parent.parent
C = "/v1/collections/c"
LOADERS = 2


class Server:
    """Servers of one data folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", str(folder)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pid = 0

    def start(self) -> str:
        """The address of a server that answers; the one before it has ended."""
        assert not self._pid
        self._mother.stdin.write("start\n")
        self._mother.stdin.flush()
        pid, port = self._mother.stdout.readline().split()
        self._pid = int(pid)
        url = f"http://127.0.0.1:{port}"
        httpx2.get(f"{url}/healthz", timeout=60).raise_for_status()  # waits in the socket's queue
        return url

    def kill(self) -> None:
        """End the server without a word."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = 0

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._mother.stdin.close()
        self._mother.stdout.close()
        self._mother.wait(60)


class Load:
    """Batches of images on their way into the collection, and what the server said of them."""

    def __init__(self) -> None:
        self.images: dict[str, bytes] = {}
        self.batches: list[list[str]] = []
        self.acknowledged: list[list[str]] = []
        self.checked: set[str] = set()  # looked at byte by byte after an earlier death
        self._lock = threading.Lock()
        self._made = 0

    def batch(self, size: int) -> list[str]:
        """Names of new images."""
        with self._lock:
            names = [f"i{self._made + place}" for place in range(size)]
            self._made += size
            self.images.update((name, png(int(name[1:]))) for name in names)
            self.batches.append(names)
            return names

    def send(self, url: str, sizes: random.Random, is_over: threading.Event) -> None:
        """Send batches until the server is gone."""
        with httpx2.Client(timeout=60) as client:
            while not is_over.is_set():
                names = self.batch(sizes.choice((1, 2, 3, 5)))
                items = "[" + ",".join(f'{{"id": "{name}"}}' for name in names) + "]"
                try:
                    answer = client.post(
                        f"{url}{C}/images",
                        files=[("files", (f"{name}.png", self.images[name])) for name in names],
                        data={"items": items},
                    )
                except httpx2.TransportError:
                    return
                assert answer.status_code == 201 and answer.json()["created"] == len(names), answer.text
                with self._lock:
                    self.acknowledged.append(names)


def check(client: httpx2.Client, load: Load, *, anew: bool = True) -> int:
    """How many images there are, after a look at every promise about them; about all if `anew`, else the unchecked."""
    listed: dict[str, dict] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"{C}/images", params={"limit": 1000, "cursor": cursor}).json()
        listed.update((one["id"], one) for one in page["images"])
        cursor = page["next"]
    lost = [name for batch in load.acknowledged for name in batch if name not in listed]
    assert not lost, f"acknowledged and gone: {lost}"
    assert client.get(C).json()["images"] == len(listed)
    for batch in load.batches:
        assert sum(name in listed for name in batch) in (0, len(batch)), f"half a batch: {batch}"
    names = [name for name in listed if anew or name not in load.checked]
    for name in names:
        content = client.get(f"{C}/images/{name}/content")
        assert content.status_code == 200, f"{name} is listed and has no bytes"
        assert content.content == load.images[name], f"{name} has other bytes"
        assert hashlib.sha256(content.content).hexdigest() == listed[name]["sha256"]
    for start in range(0, len(names), 50):
        some = names[start : start + 50]
        answer = client.post(f"{C}/query?k=1", files=[("files", (f"{name}.png", load.images[name])) for name in some])
        assert answer.status_code == 200, answer.text
        nearest = [result[0]["id"] if result else None for result in answer.json()["results"]]
        assert nearest == some, "an image is not the nearest to itself: its vector is lost or another's"
    load.checked |= set(names)
    return len(listed)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()


def kill_at_random_moments(folder: Path, moments: int, seed: int) -> None:
    chance = random.Random(seed)
    load = Load()
    were_cut = 0
    with serving(folder) as server:
        for _ in range(moments):
            url = server.start()
            with httpx2.Client(base_url=url, timeout=60) as client:
                client.put(C).raise_for_status()
                check(client, load, anew=False)
            before = len(load.acknowledged)
            is_over = threading.Event()
            seeds = [random.Random(chance.random()) for _ in range(LOADERS)]
            threads = [threading.Thread(target=load.send, args=(url, one, is_over)) for one in seeds]
            for thread in threads:
                thread.start()
            # Not before one batch is through; then at any moment of the next ones.
            while len(load.acknowledged) == before and any(thread.is_alive() for thread in threads):
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.2))
            server.kill()
            is_over.set()
            for thread in threads:
                thread.join()
            assert len(load.acknowledged) > before
            were_cut += sum(batch not in load.acknowledged for batch in load.batches) > 0
        url = server.start()
        with httpx2.Client(base_url=url, timeout=60) as client:
            assert check(client, load) >= sum(map(len, load.acknowledged)) > 0
    assert were_cut  # some requests were under way when the server died


def test_three_deaths(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path / "data", 3, seed=1)


@pytest.mark.slow
def test_twenty_deaths(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path / "data", 20, seed=2)


@pytest.mark.parametrize("damage", ["no row", "no bytes", "other bytes", "no vector", "half a batch"])
def test_the_check_notices(tmp_path: Path, damage: str) -> None:
    """The negative control: each kind of loss, made on purpose, is found."""
    settings = Settings(data=tmp_path / "data", weights="stand-in", image_size=32, threads=1)
    load = Load()
    names = load.batch(3)
    with TestClient(create_app(settings)) as client:
        client.put(C)
        items = "[" + ",".join(f'{{"id": "{name}"}}' for name in names) + "]"
        files = [("files", (f"{name}.png", load.images[name])) for name in names]
        client.post(f"{C}/images", files=files, data={"items": items}).raise_for_status()
        assert check(client, load) == 3
        if damage != "half a batch":
            load.acknowledged.append(names)
        sha256 = hashlib.sha256(load.images[names[1]]).hexdigest()
        stored = settings.data / "images" / sha256[:2] / sha256
        statements = {
            "no row": "DELETE FROM images WHERE id = 2",
            "no vector": "DELETE FROM vectors WHERE image_pk = 2",
        }
        statements["half a batch"] = statements["no row"]
        if damage == "no bytes":
            stored.unlink()
        elif damage == "other bytes":
            stored.write_bytes(load.images[names[0]])
        else:
            with client.app.state.core.database.engine.connect() as connection:
                connection.exec_driver_sql(statements[damage])
                connection.commit()
    with TestClient(create_app(settings)) as client, pytest.raises(AssertionError):
        check(client, load)
