"""A byte that flips on the disk: what carries a checksum is never taken for what it was."""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file
from sqlalchemy.exc import DatabaseError
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.storage import FolderFiles
from models.backbones.network import tensor_shapes
from models.backbones.stand_in import stand_in_weights
from tests.app.working import core_of, finished
from tests.conftest import add, png

C = "/v1/collections/c"


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", {f"n{number}": png(number) for number in range(4)})
        yield client


def flip(path: Path, at: int) -> None:
    """Turn one bit; a negative place counts from the end."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def stored(files: Any, image: bytes) -> Path:
    assert isinstance(files, FolderFiles)
    return files.path(hashlib.sha256(image).hexdigest())


@pytest.mark.parametrize("at", [0, 100, -1])
def test_an_image_is_refused_and_mended_by_sending_it_again(client: TestClient, at: int) -> None:
    flip(stored(core_of(client).store.files, png(1)), at)
    answer = client.get(f"{C}/images/n1/content")
    assert (answer.status_code, answer.json()["code"]) == (500, "bytes_damaged")
    assert client.get(f"{C}/images/n1/thumbnail").json()["code"] == "bytes_damaged"
    job = client.post(f"{C}/snapshots", params={"wait": 60}).json()
    assert (job["state"], job["problem"]["code"]) == ("failed", "bytes_damaged")
    assert client.get(f"{C}/images/n2/content").content == png(2)
    add(client, "again", {"n1": png(1)})
    assert client.get(f"{C}/images/n1/content").content == png(1)


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_thumbnail_is_made_anew(client: TestClient, at: int) -> None:
    first = client.get(f"{C}/images/n1/thumbnail").content
    flip(stored(core_of(client).thumbnails.files, png(1)), at)
    assert client.get(f"{C}/images/n1/thumbnail").content == first


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_snapshot_is_refused_and_nothing_is_restored(client: TestClient, settings: Settings, share: float) -> None:
    snapshot = finished(client, f"{C}/snapshots")["snapshot"]
    path = settings.data / "snapshots" / f"{snapshot}.tar"
    flip(path, round(share * (path.stat().st_size - 1)))
    answer = client.post("/v1/collections/back/restore", json={"snapshot": snapshot}, params={"wait": 60})
    problem = answer.json() if answer.status_code >= 400 else answer.json()["problem"]
    assert problem["status"] in (409, 422) and problem["code"] in (
        "snapshot_damaged", "no_snapshot", "snapshot_invalid", "embedding_missing"
    ), answer.text  # fmt: skip
    assert client.get("/v1/collections/back").status_code == 404
    assert [one["name"] for one in client.get("/v1/collections").json()["collections"]] == ["c"]


def vectors_in(settings: Settings) -> dict[str, bytes]:
    """The stored vectors by image id; afterwards all that was committed is in the database's own file."""
    with sqlite3.connect(settings.database.removeprefix("sqlite:///")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = connection.execute("SELECT image_id, vector FROM images JOIN vectors ON images.id = image_pk").fetchall()
    connection.close()
    return dict(rows)


@pytest.mark.parametrize(("at", "bit"), [(1027, 64)])
def test_a_bit_that_flips_in_a_stored_vector_costs_that_image_alone(
    settings: Settings, at: int, bit: int, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(settings)) as client:
        add(client, "c", {f"n{number}": png(number) for number in range(12)})
        everything = {"vector": [1.0] * 512, "k": 12}
        before = client.post(f"{C}/query", json=everything).json()["results"][0]
    path = Path(settings.database.removeprefix("sqlite:///"))
    vectors = vectors_in(settings)
    data = bytearray(path.read_bytes())
    place = data.index(vectors["n1"]) + at
    data[place] ^= bit
    path.write_bytes(data)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "SQLite does not notice"
    connection.close()
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        found = client.post(f"{C}/query", json=everything).json()["results"][0]
        assert found == [one for one in before if one["id"] != "n1"]
        assert "image 'n1' of `c` is damaged" in caplog.text
        assert client.get(f"{C}/index").json()["damaged"] == ["n1"]
        for answer in (
            client.post(f"{C}/query", json={"id": "n1"}),
            client.post(f"{C}/anomaly", json={"ids": ["n1"]}),
        ):
            told = answer.json() if answer.status_code == 500 else answer.json()["results"][0]["problem"]
            assert told["code"] == "vector_damaged", answer.text
        job = client.post(f"{C}/snapshots", params={"wait": 60}).json()
        assert (job["state"], job["problem"]["code"]) == ("failed", "vector_damaged")
        assert len(client.post(f"{C}/anomaly", json={"ids": ["n2"]}).json()["results"]) == 1
        add(client, "c", {"n1": png(1)})
        assert client.get(f"{C}/index").json()["damaged"] == []
        assert client.post(f"{C}/query", json=everything).json()["results"][0] == before
    with TestClient(create_app(settings)) as client:
        assert client.post(f"{C}/query", json=everything).json()["results"][0] == before
        assert vectors_in(settings) == vectors


def test_a_damaged_image_can_be_deleted_and_is_then_not_spoken_of(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        add(client, "c", {f"n{number}": png(number) for number in range(3)})
    with sqlite3.connect(settings.database.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(2048) WHERE image_pk = 2")
    connection.close()
    with TestClient(create_app(settings)) as client:
        assert client.get(f"{C}/index").json()["damaged"] == ["n1"]
        client.delete(f"{C}/images/n1").raise_for_status()
        assert client.get(f"{C}/index").json()["damaged"] == []
        assert client.post(f"{C}/query", json={"id": "n1"}).json()["code"] == "image_unknown"


def test_vectors_from_before_there_were_checksums_are_believed(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        add(client, "c", {f"n{number}": png(number) for number in range(3)})
    with sqlite3.connect(settings.database.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT count(checksum) FROM vectors").fetchone() == (3,)
        connection.execute("UPDATE vectors SET checksum = NULL")
    connection.close()
    with TestClient(create_app(settings)) as client:
        assert client.get(f"{C}/index").json()["damaged"] == []
        assert len(client.post(f"{C}/query", json={"id": "n1", "k": 3}).json()["results"][0]) >= 2


def test_a_record_that_is_no_database_any_more_stops_the_start(client: TestClient, settings: Settings) -> None:
    """SQLite keeps no checksum of a page: of one it can still read, only vectors are checked."""
    copy = settings.data / "copy.db"
    with sqlite3.connect(settings.database.removeprefix("sqlite:///")) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    data = settings.data.with_name("other")
    data.mkdir()
    shutil.move(copy, data / "oddity.db")
    flip(data / "oddity.db", 3)  # of the first bytes, with which every SQLite file begins
    with (
        pytest.raises(DatabaseError, match="not a database"),
        TestClient(create_app(settings.model_copy(update={"data": data}))),
    ):
        pass


def test_weights_that_changed_score_nothing(settings: Settings) -> None:
    """A file of one's own has no checksum, but the collection knows the fingerprint its vectors were made with."""
    path = settings.data / "weights" / "own.safetensors"
    path.parent.mkdir(parents=True)
    save_file(stand_in_weights("resnet18", tensor_shapes("resnet18"), 8), path)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.put(C, json={"weights": "file:own.safetensors"}).raise_for_status()
        add(client, "c", {f"n{number}": png(number) for number in range(4)})
        client.post(f"{C}/anomaly", content=png(9), headers={"content-type": "image/png"}).raise_for_status()
    flip(path, path.stat().st_size // 2)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for action in ("anomaly", "query", "images"):
            answer = client.post(f"{C}/{action}", content=png(9), headers={"content-type": "image/png"})
            assert (answer.status_code, answer.json().get("code")) == (409, "fingerprint_mismatch"), answer.text
        assert client.get(C).json()["images"] == 4
