"""A server and a worker under every kind of load, and a look at every promise about what they have answered."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import CollectionRow, ImageRow, VectorRow
from tests.conftest import png

ROOT = Path(__file__).resolve().parents[2]
C = "/v1/collections/c"
PATIENCE_S = 120.0
AGE_S = 2 * 3600
ENDED = ("succeeded", "failed", "cancelled")


class Service:
    """A server and a worker of one data folder and one record, each of which may be killed and started again."""

    def __init__(self, data: Path, record_url: str, more: dict[str, str] | None = None) -> None:
        """`more` are further variables of the environment."""
        self.data = data
        environment = {
            "ODDITY_DATABASE_URL": record_url,
            "ODDITY_JOBS": "off",
            "ODDITY_COLLECT_EVERY_S": "0.05",
            "ODDITY_INDEX_MIN_IMAGES": "4",  # so that starts go on from files, and files are written all the time
            "ODDITY_INDEX_EVERY_S": "0.2",
        }
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", str(data)],
            cwd=ROOT,
            env={**os.environ, **environment, **(more or {}), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pids: dict[str, int] = {}
        self.url = ""

    @contextlib.contextmanager
    def started(self, *kinds: str) -> Iterator[httpx2.Client]:
        """Start those of server and worker that do not run; a client of a server that answers."""
        for kind in kinds or ("start", "work"):
            if kind not in self._pids:
                pid, *port = self.fork(kind)
                self._pids[kind] = int(pid)
                if port:
                    self.url = f"http://127.0.0.1:{port[0]}"
        with httpx2.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            client.get("/healthz").raise_for_status()  # waits in the socket's queue
            yield client

    def pid(self, kind: str) -> int:
        """Id of the server or worker that runs."""
        return self._pids[kind]

    def fork(self, kind: str) -> list[str]:
        """What a new child says of itself."""
        assert self._mother.stdin is not None and self._mother.stdout is not None
        self._mother.stdin.write(f"{kind}\n")
        self._mother.stdin.flush()
        return self._mother.stdout.readline().split()

    def kill(self, *kinds: str) -> None:
        """End server, worker or both without a word."""
        for kind in kinds:
            if kind in self._pids:
                kill(self._pids.pop(kind))

    def close(self) -> None:
        """End everything."""
        self.kill("start", "work")
        assert self._mother.stdin is not None and self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.stdout.close()
        self._mother.wait(PATIENCE_S)


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for _ in range(int(PATIENCE_S / 0.01)):
        if not psutil.pid_exists(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} does not end")


class Load:
    """Images that come and go, and jobs one after the other; what was answered is remembered."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self.images: dict[str, bytes] = {}
        self.batches: list[list[str]] = []
        self.acknowledged: list[list[str]] = []
        self.unsure: list[list[str]] = []  # their deletion was sent and not answered
        self.deleted: list[list[str]] = []
        self.wrong: list[str] = []  # answers that should not have been given
        self.jobs = Jobs()

    def run(self, url: str, is_over: threading.Event) -> list[threading.Thread]:
        """Threads that send until the server is gone or it is over."""
        threads = [
            threading.Thread(target=self._send, args=(url, is_over, step))
            for step in (self._add, self._delete, self.jobs.step)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _send(self, url: str, is_over: threading.Event, step: Callable[[httpx2.Client], None]) -> None:
        with httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
            while not is_over.is_set():
                try:
                    step(client)
                except httpx2.TransportError:
                    return
                except (AssertionError, httpx2.HTTPStatusError) as error:
                    self.wrong.append(str(error))
                    return

    def _add(self, client: httpx2.Client) -> None:
        names = [f"i{next(self._numbers)}" for _ in range(self._random.choice((1, 2, 3)))]
        self.images.update((name, png(int(name[1:]))) for name in names)
        self.batches.append(names)
        files = [("files", (f"{name}.png", self.images[name])) for name in names]
        answer = client.post(f"{C}/images", files=files, data={"items": json.dumps([{"id": name} for name in names])})
        assert answer.status_code == 201, answer.text
        self.acknowledged.append(names)

    def top_up(self, client: httpx2.Client, images: int) -> None:
        """Add until there are so many that were acknowledged."""
        while sum(map(len, self.acknowledged)) < images:
            self._add(client)

    def _delete(self, client: httpx2.Client) -> None:
        if len(self.acknowledged) < 12:  # so that there is always something to clean and to compress
            time.sleep(0.02)
            return
        batch = self.acknowledged.pop(self._random.randrange(len(self.acknowledged)))
        self.unsure.append(batch)
        answer = client.post(f"{C}/images/delete", json={"ids": batch})
        assert answer.status_code == 200 and answer.json()["deleted"] == len(batch), answer.text
        self.unsure.remove(batch)
        self.deleted.append(batch)


class Jobs:
    """Snapshots, restores, cleanings, compressions and compactions, in turn; a step that was cut off is sent again."""

    def __init__(self) -> None:
        self.turn = 0
        self.done: list[str] = []
        self.may_fail_with: tuple[str, ...] = ("bank_too_small", "job_given_up")
        self._job: str | None = None
        self._snapshot: dict[str, Any] = {}
        self.restored: dict[str, int] = {}
        self._steps = (
            lambda: (f"{C}/snapshots", None),
            lambda: (f"/v1/collections/r{self.turn}/restore", {"snapshot": self._snapshot["snapshot"]}),
            lambda: (f"{C}/clean", {"fraction": 0.2}),
            lambda: (f"{C}/compress", {"method": "kmeans", "size": 3}),
            lambda: (f"{C}/compact", None),
        )

    def step(self, client: httpx2.Client) -> None:
        """Submit the next job, or look at the one that runs."""
        if self._job is None:
            if self.turn % len(self._steps) == 1 and not self._snapshot:
                self.turn += 1  # the snapshot was given up: its workers all died
            path, body = self._steps[self.turn % len(self._steps)]()
            answer = client.post(path, json=body, headers={"Idempotency-Key": f"turn {self.turn}"})
            if answer.status_code == 409 and answer.json()["code"] in ("bank_too_small", "idempotency_running"):
                time.sleep(0.02)
                return
            assert answer.status_code == 202, answer.text
            self._job = answer.json()["id"]
            return
        job = client.get(f"/v1/jobs/{self._job}").raise_for_status().json()
        if job["state"] not in ENDED:
            time.sleep(0.02)
            return
        assert job["state"] == "succeeded" or job["problem"]["code"] in self.may_fail_with, job
        if job["state"] == "succeeded":
            self._end(client, job)
        self._job = None
        self.turn += 1

    def _end(self, client: httpx2.Client, job: dict[str, Any]) -> None:
        result = job["result"]
        if job["kind"] == "snapshot":
            self._snapshot = result
        elif job["kind"] == "restore":
            assert result["images"] == self._snapshot["images"]
            self.restored[f"r{self.turn}"] = result["images"]
        elif job["kind"] == "clean":
            answer = client.delete(f"{C}/clean/{job['id']}")  # undoing twice is undoing once
            assert answer.status_code == 200, answer.text
        elif job["kind"] == "compress":
            answer = client.delete(f"{C}/compress")
            assert answer.status_code in (204, 404), answer.text
        self.done.append(job["kind"])


def age(data: Path) -> None:
    """Make every stored file look two hours old, so that the collector takes those that nobody names."""
    for path in (data / "images").rglob("*"):
        if path.is_file():
            then = time.time() - AGE_S
            os.utime(path, (then, then))


def check(client: httpx2.Client, load: Load, record: Database, *, anew: bool) -> int:
    """How many images there are, after a look at every promise; at the bytes of all of them if `anew`, else of some."""
    listed = {one["id"]: one for one in listing(client, "c")}
    for batch in load.acknowledged:
        assert all(name in listed for name in batch), f"acknowledged and gone: {batch}"
    for batch in load.deleted:
        assert not any(name in listed for name in batch), f"deleted and there: {batch}"
    for batch in load.batches:
        assert sum(name in listed for name in batch) in (0, len(batch)), f"half a batch: {batch}"
    assert client.get(C).json()["images"] == len(listed)
    names = list(listed) if anew else random.Random(len(listed)).sample(sorted(listed), min(5, len(listed)))
    for name in names:
        content = client.get(f"{C}/images/{name}/content")
        assert content.status_code == 200 and content.content == load.images[name], f"{name}: {content.status_code}"
    check_roles(client, listed)
    check_restored(client, load)
    check_search(client, record)
    return len(listed)


def listing(client: httpx2.Client, collection: str) -> Iterator[dict[str, Any]]:
    """Every image that the server lists."""
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"/v1/collections/{collection}/images", params={"limit": 1000, "cursor": cursor})
        yield from page.raise_for_status().json()["images"]
        cursor = page.json()["next"]


def check_roles(client: httpx2.Client, listed: dict[str, Any]) -> None:
    """A cleaning took out all that it says, or nothing."""
    out: set[str] = set()
    for one in client.get(f"{C}/clean").raise_for_status().json()["cleanings"]:
        if one["undone"] is None:
            images = client.get(f"{C}/clean/{one['job']}", params={"limit": 1000}).raise_for_status().json()["images"]
            out |= {image["id"] for image in images}
    assert {name for name, one in listed.items() if one["role"] != "normal"} == out & set(listed)


def check_restored(client: httpx2.Client, load: Load) -> None:
    """A restored collection is there as a whole, or not at all."""
    for one in client.get("/v1/collections").raise_for_status().json()["collections"]:
        assert "/" not in one["name"], "a collection that is not complete shows"
        if one["name"] != "c":
            there = list(listing(client, one["name"]))
            assert len(there) == one["images"] == load.jobs.restored.get(one["name"], one["images"])
            for image in there[:1]:
                content = client.get(f"/v1/collections/{one['name']}/images/{image['id']}/content")
                assert content.content == load.images[image["id"]]


def check_search(client: httpx2.Client, record: Database) -> None:
    """The nearest images are those that the record says, counted out in float64."""
    with record.read() as session:
        rows = session.execute(
            select(ImageRow.image_id, VectorRow.vector)
            .join(VectorRow, VectorRow.image_pk == ImageRow.id)
            .join(CollectionRow, CollectionRow.id == ImageRow.collection_id)
            .where(CollectionRow.name == "c")
        ).all()
    if not rows:
        return
    places = {name: place for place, (name, _) in enumerate(rows)}
    vectors = np.array([np.frombuffer(blob, "<f4") for _, blob in rows], np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = np.random.default_rng(len(rows)).normal(0, 0.02, vectors.shape[1]) + vectors[len(rows) // 2]
    distances = 1.0 - vectors @ (query / np.linalg.norm(query))
    answer = client.post(f"{C}/query", json={"vector": query.tolist(), "k": min(5, len(rows))})
    found = answer.raise_for_status().json()["results"][0]
    assert np.allclose([one["distance"] for one in found], np.sort(distances)[: len(found)], atol=1e-5)
    assert np.allclose([distances[places[one["id"]]] for one in found], [one["distance"] for one in found], atol=1e-5)
