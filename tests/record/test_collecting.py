"""What nobody needs is collected, on both databases, and never what somebody is about to need."""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.bodies import Upload
from app.clock import utc_now
from app.collecting import service
from app.collecting.collector import COLLECTOR_LOCK, Collector
from app.collecting.service import STARTS, Collected, collect_files, prune
from app.collections import service as collections
from app.core import Core
from app.db.tables import DeletionRow, IdempotencyRow, JobRow
from app.images import service as images
from app.images.schemas import AddParameters, Selection
from app.jobs import service as jobs
from app.remote_storage import RemoteFiles
from app.settings import Settings
from app.storage import PART, FolderFiles, ImageStore
from tests.conftest import add, png
from tests.record.conftest import OpenCore

PATIENCE_S = 60.0
AGE_S = 2 * 3600


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def age(core: Core, *datas: bytes) -> None:
    """Make stored bytes look two hours old."""
    for data in datas:
        for files in (core.store.files, core.thumbnails.files):
            assert isinstance(files, FolderFiles)
            path = files.path(sha(data))
            if path.exists():
                now = path.stat().st_mtime
                os.utime(path, (now - AGE_S, now - AGE_S))


def collect_all(core: Core, **named: Any) -> Collected:
    return sum((collect_files(core, start, **named) for start in STARTS), Collected())


def store(core: Core, data: bytes, name: str = "c") -> None:
    uploads = [Upload(data, None, {})]
    answer, _ = images.add_images(core, name, uploads, AddParameters(), None)
    assert answer.body["refused"] == 0, answer.body


def delete(core: Core, data: bytes, name: str = "c") -> None:
    images.delete_images(core, name, Selection(ids=[sha(data)]))


@pytest.fixture
def core(core: Core) -> Core:
    collections.put_collection(core, "c", {}, None)
    collections.put_collection(core, "d", {}, None)
    return core


def test_only_old_files_that_no_collection_needs_are_taken(client: TestClient) -> None:
    core: Core = client.app.state.core  # type: ignore[attr-defined]
    gone, shared, young, kept = (png(number) for number in range(4))
    add(client, "c", {"gone": gone, "shared": shared, "young": young, "kept": kept})
    add(client, "d", {"shared": shared})
    for name in ("gone", "kept"):
        client.get(f"/v1/collections/c/images/{name}/thumbnail").raise_for_status()
    for name in ("gone", "shared", "young"):
        client.delete(f"/v1/collections/c/images/{name}").raise_for_status()
    assert collect_all(core) == Collected(), "an hour has not passed"
    age(core, gone, shared, kept)
    assert collect_all(core, is_dry=True) == Collected(images=1, thumbnails=1)
    assert core.store.exists(sha(gone))
    assert collect_all(core) == Collected(images=1, thumbnails=1)
    assert not core.store.exists(sha(gone)) and core.thumbnails.get(sha(gone)) is None
    assert [core.store.get(sha(one)) for one in (shared, young, kept)] == [shared, young, kept]
    assert client.get("/v1/collections/d/images/shared/content").content == shared
    assert core.thumbnails.get(sha(kept))
    assert collect_all(core) == Collected(), "nothing is left to take"


def test_unfinished_files_go_when_they_are_old(core: Core, settings: Settings) -> None:
    for part, old in (("a", True), ("b", False)):
        path = settings.data / "images" / "ab" / f"{PART}{part}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
        if old:
            os.utime(path, (0, 0))
    assert collect_all(core) == Collected(unfinished=1)
    assert [path.name for path in (settings.data / "images" / "ab").iterdir()] == [f"{PART}b"]


def test_bytes_that_are_about_to_get_their_row_stay(core: Core, open_another: OpenCore) -> None:
    """Stored again an instant ago, by whichever process: the row is not there yet."""
    data = png(1)
    store(core, data)
    delete(core, data)
    age(core, data)
    open_another().store.put([(sha(data), data)])
    assert collect_all(core) == Collected()
    assert core.store.get(sha(data)) == data


class Overtaken(FolderFiles):
    """Files where somebody else wants to store the bytes at the very moment they are deleted."""

    def __init__(self, folder: Path, write: Callable[[], object], patience_s: float) -> None:
        super().__init__(folder)
        self._write_other = write
        self._patience_s = patience_s
        self.waited: bool | None = None

    def remove(self, name: str) -> None:
        """Let the other begin, give it time, and delete."""
        other = threading.Thread(target=self._write_other)
        other.start()
        other.join(self._patience_s)
        self.waited = other.is_alive()
        super().remove(name)
        self.other = other


def overtaken(core: Core, writer: Core, data: bytes, patience_s: float = 1.0) -> Overtaken:
    """A collector meets a writer between its last look and the deletion; the files after both are done.

    A writer that waits for the collector outlasts any patience; one that does not may be slow on a busy machine.
    """
    store(core, data)
    delete(core, data)
    age(core, data)
    files = Overtaken(core.settings.data / "images", lambda: store(writer, data), patience_s)
    collecting = dataclasses.replace(core, store=ImageStore(files))
    assert collect_files(collecting, sha(data)[:2]) == Collected(images=1)
    files.other.join(PATIENCE_S)
    return files


def test_whoever_stores_bytes_while_they_are_deleted_stores_them_anew(core: Core, open_another: OpenCore) -> None:
    data = png(1)
    files = overtaken(core, open_another(), data)
    assert files.waited, "the writer waits for the collector"
    assert core.shelf.get("c").sequence == 3
    assert core.store.get(sha(data)) == data


def test_without_the_lock_they_would_be_lost(core: Core, open_another: OpenCore) -> None:
    """The negative control: a writer that does not hold the lock."""
    data = png(1)
    other = open_another()
    files = overtaken(core, dataclasses.replace(other, store=ImageStore(other.store.files)), data, PATIENCE_S)
    assert not files.waited
    assert not core.store.exists(sha(data))


def test_a_writer_keeps_the_collector_out(core: Core) -> None:
    data = png(1)
    store(core, data)
    delete(core, data)
    age(core, data)
    with core.database.lock(service.IMAGES_LOCK, shared=True):
        assert collect_files(core, sha(data)[:2]) == Collected()
    assert collect_files(core, sha(data)[:2]) == Collected(images=1)


@pytest.mark.parametrize("kind", ["restore", "snapshot", "fit"])
def test_nothing_is_taken_while_a_job_needs_bytes_that_no_row_names(core: Core, kind: str) -> None:
    """A restore stores them before their rows; snapshots and fits go on reading what was deleted meanwhile."""
    data = png(1)
    core.store.put([(sha(data), data)])
    age(core, data)
    job, _ = jobs.submit(core, kind, None, {})
    with core.database.write() as session:
        session.get_one(JobRow, job["id"]).state = "running"
    assert collect_all(core) == Collected()
    with core.database.write() as session:
        session.get_one(JobRow, job["id"]).state = "succeeded"
    assert collect_all(core) == Collected(images=1)


def test_whatever_is_answered_has_its_bytes_while_others_collect(core: Core, open_another: OpenCore) -> None:
    """Two writers send, delete, age and send again what two collectors look for all the time."""
    ended = threading.Event()
    taken: list[int] = []

    def write(worker: int, own: Core) -> None:
        for turn in range(12):
            data = png(worker)
            store(own, data, "cd"[worker % 2])
            assert own.store.get(sha(data)) == data, f"lost at turn {turn}"
            delete(own, data, "cd"[worker % 2])
            age(own, data)

    def collect(own: Core) -> None:
        starts = [sha(png(worker))[:2] for worker in range(2)]
        while not ended.is_set():
            taken.append(sum(collect_files(own, start).images for start in starts))

    cores = [open_another() for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        collecting = [pool.submit(collect, one) for one in cores[:2]]
        writing = [pool.submit(write, worker, (core, cores[2])[worker]) for worker in range(2)]
        try:
            for one in writing:
                one.result(PATIENCE_S)
        finally:
            ended.set()
        for one in collecting:
            one.result(PATIENCE_S)
    assert sum(taken), "the collectors have met something to take"


def test_an_object_store_is_collected_too(core: Core) -> None:
    data, kept = png(1), png(2)
    store(core, kept)
    memory = ImageStore(RemoteFiles(f"memory://collected-{id(core)}", {}), core.store._lock)
    remote = dataclasses.replace(core, store=memory)
    memory.put([(sha(data), data), (sha(kept), kept)])
    assert collect_all(remote) == Collected()
    later = dataclasses.replace(remote, clock=lambda: utc_now() + timedelta(hours=2))
    assert collect_all(later).images == 1
    assert not memory.exists(sha(data)) and memory.get(sha(kept)) == kept


# Rows


@pytest.fixture
def months_later(core: Core) -> Core:
    """The same parts, 31 days on."""
    return dataclasses.replace(core, clock=lambda: utc_now() + timedelta(days=31))


def count(core: Core, table: type) -> int:
    with core.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_old_rows_go_and_what_is_needed_stays(core: Core, months_later: Core) -> None:
    for number in range(3):
        store(core, png(number))
    delete(core, png(0))
    delete(core, png(1))
    ids = {}
    for kind, state in (
        ("calibrate", "succeeded"),
        ("clean", "succeeded"),
        ("import", "failed"),
        ("snapshot", "queued"),
    ):
        job, _ = jobs.submit(core, kind, "c", {})
        ids[kind] = job["id"]
        with core.database.write() as session:
            row = session.get_one(JobRow, job["id"])
            row.state, row.finished_at = state, None if state == "queued" else core.clock()
    with core.database.write() as session:
        session.add(
            IdempotencyRow(scope="POST x", key="k", body_sha256="", status=201, body={}, created_at=core.clock())
        )
    assert prune(core) == Collected(), "nothing is old"
    expected = Collected(deletions=2, answers=1, jobs=2)
    assert prune(months_later, is_dry=True) == expected
    assert (count(core, DeletionRow), count(core, IdempotencyRow), count(core, JobRow)) == (2, 1, 4)
    assert prune(months_later) == expected
    assert (count(core, DeletionRow), count(core, IdempotencyRow), count(core, JobRow)) == (0, 0, 2)
    left = {jobs.get_job(core, ids[kind])["kind"] for kind in ("clean", "snapshot")}
    assert left == {"clean", "snapshot"}
    assert core.shelf.get("c").sequence == 5


def test_left_over_uploads_go(core: Core, settings: Settings) -> None:
    folder = settings.data / "uploads"
    folder.mkdir()
    for name in ("wanted", "left"):
        (folder / name).write_bytes(b"archive")
        os.utime(folder / name, (0, 0))
    jobs.submit(core, "import", "c", {"upload": {"name": "wanted"}})
    prune(core)
    assert [path.name for path in folder.iterdir()] == ["wanted"]


# The thread


@pytest.fixture
def busy_core(core: Core) -> Core:
    return dataclasses.replace(core, settings=core.settings.model_copy(update={"collect_every_s": 0.001}))


@pytest.fixture
def collector(busy_core: Core) -> Iterator[Collector]:
    collector = Collector(busy_core)
    yield collector
    collector.stop()


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail("waited in vain")


def test_a_worker_collects_by_itself(busy_core: Core, collector: Collector) -> None:
    datas = [png(number) for number in range(3)]
    for data in datas:
        store(busy_core, data)
    delete(busy_core, datas[0])
    age(busy_core, *datas)
    collector.start()
    until(lambda: not busy_core.store.exists(sha(datas[0])))
    collector.stop()
    assert all(busy_core.store.exists(sha(data)) for data in datas[1:])


def test_one_process_collects_at_a_time(core: Core, open_another: OpenCore) -> None:
    data = png(1)
    core.store.put([(sha(data), data)])
    age(core, data)
    turn = STARTS.index(sha(data)[:2])
    with open_another().database.lock(COLLECTOR_LOCK, shared=False) as is_alone:
        assert is_alone
        assert Collector(core).step(turn) == Collected()
    assert Collector(core).step(turn).images == 1


def test_a_store_that_is_away_is_met_again(busy_core: Core, caplog: pytest.LogCaptureFixture) -> None:
    class Away(FolderFiles):
        failures = 3

        def names(self, start: str) -> Iterator[str]:
            if self.failures:
                self.failures -= 1
                raise OSError(5, "input/output error")
            return super().names(start)

    files = Away(busy_core.settings.data / "images")
    data = png(1)
    files.write([(sha(data), data)])
    age(busy_core, data)
    collector = Collector(dataclasses.replace(busy_core, store=ImageStore(files)))
    collector.start()
    until(lambda: not files.exists(sha(data)))
    collector.stop()
    assert caplog.text.count("nothing is collected at the moment: OSError") == 3
