"""The image store: content-addressed files."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.errors import NotFound
from app.storage import ImageStore


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_bytes_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "deep" / "images")
    items = [(sha(data), data) for data in (b"", b"one", b"two" * 100_000)]
    store.put(items)
    for sha256, data in items:
        assert store.get(sha256) == data
        assert store.path(sha256) == tmp_path / "deep" / "images" / sha256[:2] / sha256
    assert len(files(store.folder)) == 3


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.put([(sha(b"a"), b"a")])
    before = store.path(sha(b"a")).stat()
    store.put([(sha(b"a"), b"a"), (sha(b"b"), b"b"), (sha(b"b"), b"b")])
    after = store.path(sha(b"a")).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(files(tmp_path)) == 2


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="bytes") as caught:
        ImageStore(tmp_path).get(sha(b"x"))
    assert caught.value.code == "bytes_missing"


def test_nothing_put_is_nothing_done(tmp_path: Path) -> None:
    ImageStore(tmp_path).put([])
    assert files(tmp_path) == []


def test_many_threads_may_store_the_same_bytes(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    data = [bytes([number]) * 5000 for number in range(8)]
    ready = threading.Barrier(8)

    def put(_number: int) -> None:
        ready.wait()
        store.put((sha(one), one) for one in data)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(8)))
    assert [store.get(sha(one)) for one in data] == data
    assert len(files(tmp_path)) == 8  # and no part is left behind


def test_a_part_that_a_crash_left_is_never_taken_for_an_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    folder = store.path(sha(b"a")).parent
    folder.mkdir(parents=True)
    (folder / ".part-abc").write_bytes(b"half")
    with pytest.raises(NotFound):
        store.get(sha(b"a"))
    store.put([(sha(b"a"), b"a")])
    assert store.get(sha(b"a")) == b"a"
