"""A disk that fills up: the request is told so, nothing is half written, and the service goes on."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from app import storage
from app.errors import describe
from app.main import create_app
from app.settings import Settings
from tests.app.working import core_of, finished
from tests.conftest import add, png

ROOT = Path(__file__).resolve().parents[2]
C = "/v1/collections/c"
WRITES = 3  # of a batch of images: bytes, bytes, bytes


@contextmanager
def full_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk is full from the k-th file on that is synced."""
    left = call
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", synced)
        yield


def ids(client: TestClient) -> list[str]:
    return [one["id"] for one in client.get(f"{C}/images").json()["images"]]


@pytest.mark.parametrize("call", range(WRITES + 2))
def test_a_batch_that_does_not_fit_is_refused_as_a_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", {"a": png(1)})
        files = [("files", (f"{number}.png", png(10 + number))) for number in range(WRITES)]
        with full_at(call, monkeypatch):
            answer = client.post(f"{C}/images", files=files)
            assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
            assert answer.headers["content-type"] == "application/problem+json"
            assert ids(client) == ["a"]
            asked = client.post(f"{C}/query?k=1", files=[("files", ("q.png", png(1)))])
            assert asked.json()["results"][0][0]["id"] == "a", "what needs no disk goes on"
        assert not list((settings.data / "images").rglob(f"{storage.PART}*"))
        answer = client.post(f"{C}/images", files=files)
        assert answer.json()["created"] == WRITES
        for one in answer.json()["items"]:
            assert client.get(f"{C}/images/{one['id']}/content").status_code == 200


def test_a_record_that_is_full_refuses_and_goes_on(settings: Settings) -> None:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", {"a": png(1)})
        engine = core_of(client).database.engine

        def limit(pages: int) -> None:
            for _ in range(60):  # the pragma is each connection's own
                with engine.connect() as connection:
                    connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        limit(pages)
        refused = None
        for number in range(200):  # until the free pages are used up
            answer = client.post(f"{C}/images", content=png(100 + number), headers={"content-type": "image/png"})
            if answer.status_code != 201:
                refused = answer
                break
        assert refused is not None
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        before = ids(client)
        assert len(before) == 1 + number
        limit(2**30)
        add(client, "c", {"b": png(2)})
        assert ids(client) == [*before, "b"]
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


def test_a_full_postgresql_is_told_apart_from_one_that_is_away() -> None:
    class Cause(Exception):
        sqlstate = "53100"

    assert describe(OperationalError("INSERT", {}, Cause()))[:2] == (507, "storage_full")
    Cause.sqlstate = "57P01"
    assert describe(OperationalError("INSERT", {}, Cause()))[:2] == (503, "record_unavailable")


def test_a_snapshot_that_does_not_fit_leaves_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", {f"n{number}": png(number) for number in range(3)})
        with full_at(0, monkeypatch):
            job = client.post(f"{C}/snapshots", params={"wait": 60}).json()
            assert (job["state"], job["problem"]["code"], job["problem"]["status"]) == ("failed", "storage_full", 507)
        assert client.get(f"{C}/snapshots").json()["snapshots"] == []
        assert list((settings.data / "snapshots").iterdir()) == []
        assert finished(client, f"{C}/snapshots")["images"] == 3


LIMITED = """
import resource, socket, sys
from pathlib import Path
import uvicorn
from app.main import create_app
from app.settings import Settings
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
settings = Settings(data=Path(sys.argv[1]), weights="stand-in", image_size=32, threads=1, log_level="error")
uvicorn.Server(uvicorn.Config(create_app(settings), log_level="error")).run(sockets=[listener])
"""


def test_a_server_that_may_write_no_more_refuses_and_goes_on(tmp_path: Path) -> None:
    """The kernel's own limit on the size of a file, on a real server: writes of every file fail, the record's too."""
    with subprocess.Popen(
        [sys.executable, "-c", LIMITED, str(tmp_path / "data")], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        with httpx2.Client(base_url=url, timeout=120) as client:

            def post(seed: int) -> Any:
                return client.post(f"{C}/images", content=png(seed, side=96), headers={"content-type": "image/png"})

            client.put(C).raise_for_status()
            post(1).raise_for_status()
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            for seed in (2, 3):
                answer = post(seed)
                assert answer.status_code in (503, 507), answer.text
                assert answer.json()["code"] in ("storage_full", "record_unavailable")
            scored = client.post(f"{C}/query?k=1", content=png(1, side=96), headers={"content-type": "image/png"})
            assert len(scored.raise_for_status().json()["results"][0]) == 1
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert len(client.get(f"{C}/images").json()["images"]) == 1
            assert post(2).status_code == 201
            assert len(client.get(f"{C}/images").json()["images"]) == 2
        server.send_signal(signal.SIGKILL)
