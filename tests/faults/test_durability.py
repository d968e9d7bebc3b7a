"""A power cut loses what was not synced: bytes, then their names, then the record, in this order."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event, text
from starlette.testclient import TestClient

from app import storage
from app.db import engine
from app.db.engine import Database
from app.main import create_app
from app.settings import Settings
from app.storage import FolderFiles
from tests.conftest import add, png

Step = tuple[str, str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", weights="stand-in", image_size=32, threads=1)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What is synced and renamed, in order."""
    seen: list[Step] = []
    fsync, rename, mkdir = os.fsync, Path.rename, Path.mkdir

    def seen_fsync(descriptor: int) -> None:
        fsync(descriptor)
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((f"sync {kind}", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def seen_rename(self: Path, target: Path) -> Path:
        seen.append((f"rename {self}", str(target)))
        return rename(self, target)

    def seen_mkdir(self: Path, *given: object, **named: object) -> None:
        if not self.exists():
            seen.append(("mkdir", str(self)))
        mkdir(self, *given, **named)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    monkeypatch.setattr(Path, "mkdir", seen_mkdir)
    return seen


def check_order(steps: list[Step], folder: Path) -> int:
    """How many files became durable before the commit that follows them."""
    names = [name for name, _ in steps]
    commit = names.index("commit", next(at for at, name in enumerate(names) if name.startswith("rename")))
    renames = [(at, step) for at, step in enumerate(steps) if step[0].startswith("rename") and at < commit]
    for at, (name, target) in renames:
        assert ("sync file", name.removeprefix("rename ")) in steps[:at], "renamed before its bytes were on disk"
        assert ("sync folder", str(Path(target).parent)) in steps[at:commit], "committed before its name was on disk"
    for at, (name, made) in enumerate(steps[:commit]):
        if name == "mkdir" and Path(made).is_relative_to(folder):
            assert ("sync folder", str(Path(made).parent)) in steps[at:commit], (
                "committed before its folder was on disk"
            )
    assert not any(name.startswith("rename") for name in names[commit:])
    return len(renames)


def record(client: TestClient, steps: list[Step], work: Callable[[], object]) -> list[Step]:
    """The steps of this work, commits among them."""

    def on_commit(_connection: object) -> None:
        steps.append(("commit", ""))

    client.put("/v1/collections/c")
    engine = client.app.state.core.database.engine
    event.listen(engine, "commit", on_commit)
    steps.clear()
    work()
    event.remove(engine, "commit", on_commit)
    return list(steps)


def test_bytes_then_names_then_the_record(settings: Settings, steps: list[Step]) -> None:
    with TestClient(create_app(settings)) as client:
        made = record(client, steps, lambda: add(client, "c", {f"n{number}": png(number) for number in range(5)}))
        assert check_order(made, settings.data / "images") == 5
        # Folders are synced once a batch: five files cost no more than six folder syncs.
        assert sum(name == "sync folder" for name, _ in made) <= 6


def test_a_file_that_is_there_may_not_be_durable_yet(settings: Settings, steps: list[Step]) -> None:
    """Another request stored the same bytes and has not come to sync the folder: this one must not rely on it."""
    with TestClient(create_app(settings)) as client:
        add(client, "c", {"a": png(1)})
        made = record(client, steps, lambda: add(client, "c", {"b": png(1)}))
        assert made[-1] == ("commit", "")
        folders = [path for name, path in made if name == "sync folder"]
        assert any(Path(path).parent == settings.data / "images" for path in folders)


def test_sqlite_syncs_every_commit(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        engine = client.app.state.core.database.engine
        with engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL


# The negative controls: a store that forgets one step is found out.


def _no_file_sync(self: FolderFiles, items) -> None:
    for sha256, data in items:
        self.path(sha256).parent.mkdir(exist_ok=True)
        part = self.folder / f"part-{sha256}"
        part.write_bytes(data)
        part.rename(self.path(sha256))
        storage._sync_folder(self.path(sha256).parent)
        storage._sync_folder(self.folder)


def _no_folder_sync(self: FolderFiles, items) -> None:
    for sha256, data in items:
        self.path(sha256).parent.mkdir(exist_ok=True)
        part = self.folder / f"part-{sha256}"
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.path(sha256))


def _no_new_folder_sync(self: FolderFiles, items) -> None:
    items = list(items)
    _no_folder_sync(self, items)
    for sha256, _ in items:
        storage._sync_folder(self.path(sha256).parent)


@pytest.mark.parametrize("put", [_no_file_sync, _no_folder_sync, _no_new_folder_sync])
def test_a_store_that_forgets_a_step_is_found_out(settings: Settings, steps: list[Step], monkeypatch, put) -> None:
    monkeypatch.setattr(FolderFiles, "write", put)
    with TestClient(create_app(settings)) as client:
        made = record(client, steps, lambda: add(client, "c", {"a": png(1)}))
        with pytest.raises(AssertionError):
            check_order(made, settings.data / "images")


def test_a_failed_write_leaves_no_row_and_no_name(settings: Settings, monkeypatch) -> None:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", {"a": png(1)})

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            answer = client.post("/v1/collections/c/images", content=png(2), headers={"content-type": "image/png"})
            assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
            assert not list((settings.data / "images").rglob(".*"))
        assert [one["id"] for one in client.get("/v1/collections/c/images").json()["images"]] == ["a"]
        add(client, "c", {"b": png(2)})
        assert client.get("/v1/collections/c/images/b/content").content == png(2)


def test_the_log_of_a_large_transaction_is_cut_down_by_the_next_write(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(engine, "WAL_KEPT_BYTES", 1 << 20)
    database = Database(f"sqlite:///{tmp_path / 'record.db'}")
    log = tmp_path / "record.db-wal"
    with database.write() as session:
        session.execute(text("CREATE TABLE numbers (bytes BLOB)"))
        session.execute(text("INSERT INTO numbers VALUES (:bytes)"), [{"bytes": os.urandom(8000)} for _ in range(1200)])
    assert log.stat().st_size > 8 << 20  # so much is copied back by itself
    with database.write() as session:
        session.execute(text("INSERT INTO numbers VALUES (0)"))
    assert log.stat().st_size <= 1 << 20
    database.close()
