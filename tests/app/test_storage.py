"""The image store: content-addressed files in a folder, in an object store, and elsewhere; all promise the same."""

import errno
import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from starlette.testclient import TestClient

from app.errors import Busy, BytesDamaged, NotFound
from app.main import create_app
from app.remote_storage import TRIES, ImageStoreUnsupported, RemoteFiles, open_files
from app.settings import Settings
from app.storage import PART, WRITTEN_TOGETHER, Files, FolderFiles, ImageStore, Thumbnails
from tests.app.object_store import SECRET, ObjectStore, object_store
from tests.app.working import core_of, finished
from tests.conftest import add, png

_places = (f"place{number}" for number in count())


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def on_disk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def bucket() -> Iterator[ObjectStore]:
    with object_store("images") as store:
        yield store


@pytest.fixture(params=["folder", "s3", "memory", "plain"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Files in a folder; in an object store that speaks S3; in fsspec's own memory; where files are renamed."""
    place = next(_places)
    if request.param == "folder":
        return FolderFiles(tmp_path / place)
    if request.param == "s3":
        bucket: ObjectStore = request.getfixturevalue("bucket")
        return RemoteFiles(f"{bucket.url}/{place}", bucket.options, pause_s=0)
    if request.param == "memory":
        return RemoteFiles(f"memory://{place}", {}, pause_s=0)
    return RemoteFiles(f"dir::file://{tmp_path / place}", {}, pause_s=0)


@pytest.fixture
def store(files: Files) -> ImageStore:
    return ImageStore(files)


def test_bytes_come_back_as_they_went_in(store: ImageStore) -> None:
    items = [(sha(data), data) for data in (b"", b"one", b"two" * 100_000)]
    store.put(items)
    for sha256, data in items:
        assert store.get(sha256) == data
        assert store.exists(sha256)
        assert list(store.files.names(sha256[:2])) == [sha256]


def test_files_of_a_batch_are_on_their_way_before_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for: list[int] = []
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            waited_for.append(len(on_disk(tmp_path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    many = WRITTEN_TOGETHER + 4
    items = [(sha(data), data) for data in (bytes([number]) * 5000 for number in range(many))]
    files = FolderFiles(tmp_path / "images")
    files.write(items)
    assert [files.read(name) for name, _ in items] == [data for _, data in items]
    assert waited_for == [WRITTEN_TOGETHER] * WRITTEN_TOGETHER + [many] * 4


def test_a_file_system_that_takes_no_advice_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refusing, raising=False)
    files = FolderFiles(tmp_path / "images")
    files.write([(sha(b"a"), b"a")])
    assert files.read(sha(b"a")) == b"a"


def test_a_batch_of_which_one_file_fails_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, spoilt = Path.rename, sha(b"b")

    def failing(self: Path, target: Path) -> Path:
        if target.name == spoilt:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    files = FolderFiles(tmp_path / "images")
    with pytest.raises(OSError, match="No space left"):
        files.write([(sha(data), data) for data in (b"a", b"b", b"c")])
    assert not files.exists(spoilt)
    assert not [path for path in on_disk(tmp_path) if path.name.startswith(PART)]


def test_putting_again_changes_nothing_but_the_date(store: ImageStore) -> None:
    store.put([(sha(b"a"), b"a")])
    first = store.files.changed_at(sha(b"a"))
    store.put([(sha(b"a"), b"a"), (sha(b"b"), b"b"), (sha(b"b"), b"b")])
    again = store.files.changed_at(sha(b"a"))
    assert first is not None and again is not None and again >= first
    now = datetime.now(UTC).replace(tzinfo=None)
    assert abs(now - again) < timedelta(minutes=5), "in UTC"
    assert store.get(sha(b"a")) == b"a"
    assert len(list(store.files.names(sha(b"a")[:2]))) == 1


def test_what_is_not_there_is_named(store: ImageStore) -> None:
    with pytest.raises(NotFound, match="bytes") as caught:
        store.get(sha(b"x"))
    assert caught.value.code == "bytes_missing"
    assert not store.exists(sha(b"x"))
    assert store.files.changed_at(sha(b"x")) is None
    assert list(store.files.names("00")) == []
    store.files.remove(sha(b"x"))


def test_damage_is_noticed_and_mended_by_the_next_put(store: ImageStore) -> None:
    store.files.write([(sha(b"right"), b"wrong")])
    with pytest.raises(BytesDamaged, match=sha(b"wrong")):
        store.get(sha(b"right"))
    store.put([(sha(b"right"), b"right")])
    assert store.get(sha(b"right")) == b"right"


def test_what_is_removed_is_gone(store: ImageStore) -> None:
    store.put([(sha(b"a"), b"a")])
    store.files.remove(sha(b"a"))
    store.files.remove(sha(b"a"))
    assert not store.exists(sha(b"a"))


def test_nothing_put_is_nothing_done(store: ImageStore) -> None:
    store.put([])
    assert list(store.files.names("00")) == []


def test_many_threads_may_store_the_same_bytes(store: ImageStore) -> None:
    data = [bytes([number]) * 5000 for number in range(8)]
    ready = threading.Barrier(4)

    def put(_number: int) -> None:
        ready.wait()
        store.put((sha(one), one) for one in data)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put, range(4)))
    assert [store.get(sha(one)) for one in data] == data
    starts = {sha(one)[:2] for one in data}
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    assert [store.files.sweep(start, later) for start in starts] == [0] * len(starts), "no part is left behind"


def test_thumbnails_come_back_and_damaged_ones_are_as_good_as_none(files: Files) -> None:
    thumbnails = Thumbnails(files)
    assert thumbnails.get(sha(b"original")) is None
    thumbnails.put(sha(b"original"), b"small")
    assert thumbnails.get(sha(b"original")) == b"small"
    kept = files.read(sha(b"original"))
    files.write([(sha(b"original"), kept[:-1] + b"L")])
    assert thumbnails.get(sha(b"original")) is None
    files.write([(sha(b"original"), b"short")])
    assert thumbnails.get(sha(b"original")) is None


# The folder


def test_a_file_has_its_place_and_is_not_written_again(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path / "deep" / "images")
    files.write([(sha(b"a"), b"a")])
    path = files.path(sha(b"a"))
    assert path == tmp_path / "deep" / "images" / sha(b"a")[:2] / sha(b"a")
    os.utime(path, (1, 1))
    before = path.stat().st_ino
    files.write([(sha(b"a"), b"a")])
    assert path.stat().st_ino == before
    assert path.stat().st_mtime > 10**9


def test_a_part_that_a_crash_left_is_never_taken_for_an_image_and_goes_in_the_end(tmp_path: Path) -> None:
    store = ImageStore(FolderFiles(tmp_path))
    folder = tmp_path / sha(b"a")[:2]
    folder.mkdir(parents=True)
    (folder / f"{PART}abc").write_bytes(b"half")
    with pytest.raises(NotFound):
        store.get(sha(b"a"))
    store.put([(sha(b"a"), b"a")])
    assert store.get(sha(b"a")) == b"a"
    assert list(store.files.names(folder.name)) == [sha(b"a")]
    now = datetime.now(UTC).replace(tzinfo=None)
    assert store.files.sweep(folder.name, now - timedelta(hours=1)) == 0
    assert store.files.sweep(folder.name, now + timedelta(hours=1)) == 1
    assert on_disk(tmp_path) == [folder / sha(b"a")]


# The others


class Failing:
    """A file system that fails so many times before it works."""

    def __init__(self, system: Any, failures: int, error: Exception) -> None:
        self._system = system
        self.left = failures
        self._error = error

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._system, name)

        def maybe(*given: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self._error
            return work(*given, **named)

        return maybe


class StrangeError(Exception):
    """As backends have them: no kin of OSError."""


@pytest.mark.parametrize("kind", ["memory", "dir::file"])
def test_what_fails_for_a_moment_is_tried_again(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = RemoteFiles(f"{kind}://{tmp_path}/moment", {}, pause_s=0)
    files.write([(sha(b"a"), b"a")])
    files._system = Failing(files._system, TRIES - 1, StrangeError("key=sesame"))  # type: ignore[assignment]
    assert files.read(sha(b"a")) == b"a"
    files._system.left = TRIES - 1
    files.write([(sha(b"b"), b"b")])
    assert files.read(sha(b"b")) == b"b"
    assert "StrangeError" in caplog.text and "sesame" not in caplog.text
    for work in (lambda: files.read(sha(b"a")), lambda: files.write([(sha(b"c"), b"c")]), lambda: files.exists("00ff")):
        files._system.left = TRIES
        with pytest.raises(Busy) as caught:
            work()
        assert caught.value.code == "image_store_unavailable" and "sesame" not in caught.value.detail
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_refusal_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    files = RemoteFiles("memory://refused", {}, pause_s=0)
    files._system = refusing = Failing(files._system, 100, PermissionError("no"))  # type: ignore[assignment]
    with pytest.raises(Busy):
        files.write([(sha(b"a"), b"a")])
    assert refusing.left == 99


def test_a_write_that_breaks_off_leaves_no_half(tmp_path: Path) -> None:
    """Where files are renamed: the name comes last."""
    files = RemoteFiles(f"dir::file://{tmp_path}/half", {}, pause_s=0)

    def broken(_part: str, _path: str) -> None:
        raise StrangeError

    system = files._system
    move, system.mv = system.mv, broken
    with pytest.raises(Busy):
        files.write([(sha(b"a"), b"a")])
    system.mv = move
    assert not files.exists(sha(b"a"))
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)
    assert files.sweep(sha(b"a")[:2], later) == TRIES
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [("nosuch://me:sesame@place", {}, "nosuch://"), ("gs://bucket", {}, "gs://.* not installed")],
)
def test_a_url_that_cannot_be_used_is_said_without_its_password(url: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageStoreUnsupported, match=said) as caught:
        open_files(url, options, "images", Path())
    assert "sesame" not in str(caught.value)


def test_a_folder_by_any_name_is_written_durably(tmp_path: Path) -> None:
    for url in (str(tmp_path / "one"), f"file://{tmp_path / 'two'}"):
        opened = open_files(url, {}, "images", Path())
        assert isinstance(opened, FolderFiles)
        assert opened.folder == Path(url.removeprefix("file://")) / "images"
    assert isinstance(open_files(None, {}, "images", tmp_path), FolderFiles)


def test_options_must_be_an_object_and_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("[1]", "{sesame"):
        with pytest.raises(ValueError, match="must be a JSON object") as caught:
            Settings(image_store_options=text)
        assert "sesame" not in str(caught.value.errors(include_input=False))  # type: ignore[attr-defined]
    settings = Settings(image_store="s3://me:sesame@host", image_store_options='{"secret": "sesame"}')
    assert "sesame" not in repr(settings) and "sesame" not in settings.model_dump_json()


# The service on an object store


@pytest.fixture
def remote(bucket: ObjectStore, settings: Settings) -> Callable[..., TestClient]:
    place = f"{bucket.url}/{next(_places)}"
    changed = settings.model_copy(update={})
    changed = Settings(
        **{
            **changed.model_dump(exclude={"image_store", "image_store_options"}),
            "image_store": place,
            "image_store_options": json.dumps(bucket.options),
        }
    )
    return lambda: TestClient(create_app(changed), raise_server_exceptions=False)


def test_a_service_keeps_its_images_in_an_object_store(
    remote: Callable[..., TestClient], bucket: ObjectStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "oddity")
    images = {f"n{number}": png(number) for number in range(5)}
    with remote() as client:
        add(client, "c", images)
        assert client.get("/v1/collections/c/images/n3/content").content == images["n3"]
        small = client.get("/v1/collections/c/images/n3/thumbnail")
        assert small.status_code == 200
        snapshot = finished(client, "/v1/collections/c/snapshots")["snapshot"]
        answer = client.post("/v1/collections/back/restore", json={"snapshot": snapshot}, params={"wait": 60})
        assert answer.json()["state"] == "succeeded", answer.text
    with remote() as client:  # as another process finds it
        assert client.get("/v1/collections/back/images/n4/content").content == images["n4"]
        assert client.get("/v1/collections/c/images/n3/thumbnail").content == small.content
        core = core_of(client)
        kept = [path.split("/")[-3] for path in bucket.system().find(core.settings.image_store_url)]
        assert sorted(kept) == ["images"] * 5 + ["thumbnails"]
        core.store.files.remove(sha(images["n0"]))
        missing = client.get("/v1/collections/c/images/n0/content")
        assert (missing.status_code, missing.json()["code"]) == (404, "bytes_missing")
    assert not (settings.data / "images").exists()
    assert SECRET not in caplog.text


def test_an_object_store_that_is_away_is_a_503_and_nothing_is_stored(
    remote: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    with remote() as client:
        add(client, "c", {"a": png(1)})
        files = core_of(client).store.files
        assert isinstance(files, RemoteFiles)
        files._pause_s = 0
        system, files._system = files._system, Failing(files._system, 1000, StrangeError(SECRET))  # type: ignore[assignment]
        refused = client.post("/v1/collections/c/images", content=png(2), headers={"content-type": "image/png"})
        unread = client.get("/v1/collections/c/images/a/content")
        for answer in (refused, unread):
            assert (answer.status_code, answer.json()["code"]) == (503, "image_store_unavailable")
            assert answer.headers["retry-after"]
        assert client.get("/v1/collections/c").json()["images"] == 1
        files._system = system
        add(client, "c", {"b": png(2)})
        assert client.get("/v1/collections/c/images/b/content").content == png(2)
    assert SECRET not in caplog.text


def test_without_its_bucket_the_service_says_so(bucket: ObjectStore) -> None:
    files = RemoteFiles("s3://no-such-bucket/images", bucket.options, pause_s=0)
    with pytest.raises(Busy):
        files.write([(sha(b"a"), b"a")])
    assert fsspec.get_filesystem_class("s3").__name__ == "S3FileSystem"
