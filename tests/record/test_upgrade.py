"""Records and snapshots of earlier versions, opened by this one: nothing is lost, and the answers stay what they were.

`old_records` was written by those versions themselves; see `make_old_record.py`.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from sqlalchemy import MetaData, Table, create_engine, insert, inspect, select, text
from starlette.testclient import TestClient

from app.clock import utc_now
from app.db.engine import Database, _alembic_configuration, newest_revision
from app.db.tables import Base
from app.main import create_app
from app.settings import Settings
from tests.app.working import finished
from tests.contract.problem_shape import problem_of
from tests.record.make_old_record import IMAGES, picture

FOLDER = Path(__file__).parent / "old_records"
REVISIONS = sorted(path.stem for path in FOLDER.glob("*.sql"))
SNAPSHOTS = sorted(path.stem for path in FOLDER.glob("*.tar"))
C = "/v1/collections/old"
# Before 0005 images were prepared otherwise for the network: their vectors are found and compared among themselves, and
# no new image is compared with them.
OTHER_EMBEDDING = ("0001", "0002", "0003", "0004")
P_VALUES_SINCE = "0010"


def told(revision: str) -> dict[str, Any]:
    """What that version answered."""
    answers: dict[str, Any] = json.loads((FOLDER / f"{revision}.json").read_text())
    return answers


def put_back(revision: str, path: Path) -> None:
    """The record as that version left it, in SQLite; what is only looked at for a day is of this hour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as record:
        record.executescript((FOLDER / f"{revision}.sql").read_text())
        if revision >= P_VALUES_SINCE:
            record.execute("UPDATE p_values SET at = ?", (f"{utc_now():%Y-%m-%d %H}:00:00.000000",))
            record.commit()


def move(source: Path, url: str, revision: str) -> None:
    """The same rows in another database, in the tables that the migrations of that version make there."""
    database = Database(url)
    with database._writing.begin() as connection:
        alembic.command.upgrade(_alembic_configuration(connection), revision)
    old = create_engine(f"sqlite:///{source}")
    try:
        before, after = MetaData(), MetaData()
        before.reflect(old)
        after.reflect(database.engine)
        with old.connect() as reading, database._writing.begin() as writing:
            for table in after.sorted_tables:
                if table.name != "alembic_version":
                    _copy(reading, writing, before.tables[table.name], table)
    finally:
        old.dispose()
        database.close()


def _copy(reading: Any, writing: Any, source: Table, target: Table) -> None:
    rows = [dict(row) for row in reading.execute(select(source)).mappings()]
    writing.execute(target.delete())  # what the migrations themselves put there is among the rows
    if rows:
        writing.execute(insert(target), rows)
    if "id" in target.c and rows and isinstance(rows[0]["id"], int):
        sequence = f"pg_get_serial_sequence('{target.name}', 'id')"
        writing.execute(text(f"SELECT setval({sequence}, (SELECT max(id) FROM {target.name}))"))


@pytest.fixture(
    params=[*((one, "sqlite") for one in REVISIONS), (REVISIONS[0], "postgresql"), (REVISIONS[-1], "postgresql")]
)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, TestClient]]:
    """This version, started on the record of an earlier one; and which one."""
    revision, kind = request.param
    put_back(revision, tmp_path / "old.db")
    url = f"sqlite:///{tmp_path / 'old.db'}"
    if kind == "postgresql":
        server = request.getfixturevalue("postgresql")
        url = server.create(f"old_{revision}", template="template0")
        move(tmp_path / "old.db", url, revision)
    settings = Settings(data=tmp_path / "data", database_url=url, weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield revision, client
    if kind == "postgresql":
        server.drop(f"old_{revision}")


def test_the_revision_before_each_of_the_later_ones_is_here() -> None:
    made = sorted(path.name[:4] for path in (Path(__file__).parents[2] / "migrations" / "versions").glob("0*.py"))
    assert set(REVISIONS) <= set(made) and made[0] == REVISIONS[0]


def test_an_old_record_is_opened_and_answers_as_it_did(old: tuple[str, TestClient]) -> None:
    revision, client = old
    before = told(revision)
    database: Database = client.app.state.core.database  # type: ignore[attr-defined]
    assert database.revisions() == (newest_revision(), newest_revision())
    there = inspect(database.engine)
    for name, table in Base.metadata.tables.items():
        assert {column.name for column in table.columns} <= {column["name"] for column in there.get_columns(name)}
    collection = client.get(C).raise_for_status().json()
    for field in ("fingerprint", "images", "weights"):
        assert collection[field] == before["collection"][field], field
    images = client.get(f"{C}/images").raise_for_status().json()["images"]
    for now, then in zip(images, before["images"]["images"], strict=True):
        assert now.items() >= then.items()
    found = client.post(f"{C}/query", json={"id": "i3", "k": 4, "filter": {"line": 1}}).raise_for_status().json()
    for now, then in zip(found["results"][0], before["query"]["results"][0], strict=True):
        assert now["id"] == then["id"] and now["distance"] == pytest.approx(then["distance"], abs=1e-6)
    assert client.get(f"{C}/groups").json()["groups"][0]["members"] == before["groups"]["groups"][0]["members"]
    assert finished(client, f"{C}/calibrate")
    for given, then in zip((100, 101), before["anomaly"]["results"], strict=True):
        answer = client.post(f"{C}/anomaly", content=picture(given), headers={"content-type": "image/png"})
        if revision in OTHER_EMBEDDING:  # never mixed with what is computed now
            problem_of(answer, 409, "fingerprint_mismatch")
            continue
        (now,) = answer.raise_for_status().json()["results"]
        _same_verdict(now, then)
        assert [one["id"] for one in now["neighbours"]] == [one["id"] for one in then["neighbours"]]
    if revision not in OTHER_EMBEDDING:
        sent = client.post(f"{C}/images", content=picture(50), headers={"content-type": "image/png"})
        assert sent.raise_for_status().json()["sequence"] == before["anomaly"]["sequence"] + 1
        # That version kept the scores of the two that it was asked about.
        kept = 2 if revision >= P_VALUES_SINCE else 0
        assert client.get(f"{C}/drift").raise_for_status().json()["n"] == kept + 2


def test_the_embedding_of_the_newest_is_the_present_one() -> None:
    assert REVISIONS[-1] not in OTHER_EMBEDDING


@pytest.mark.parametrize("revision", SNAPSHOTS)
def test_an_old_snapshot_is_restored(tmp_path: Path, revision: str) -> None:
    before = told(revision)
    settings = Settings(data=tmp_path / "data", weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        answer = client.post(
            "/v1/collections/again/restore",
            content=(FOLDER / f"{revision}.tar").read_bytes(),
            headers={"content-type": "application/x-tar"},
            params={"wait": 60},
        )
        if revision in OTHER_EMBEDDING:
            problem_of(answer, 409, "embedding_missing")
            assert client.get("/v1/collections/again").status_code == 404
            return
        assert answer.json()["state"] == "succeeded", answer.text
        files = [("files", ("q.png", picture(number))) for number in (100, 101)]
        answer = client.post("/v1/collections/again/anomaly", files=files)
        for now, then in zip(answer.raise_for_status().json()["results"], before["anomaly"]["results"], strict=True):
            _same_verdict(now, then)
        assert client.get("/v1/collections/again").json()["images"] == IMAGES
        assert client.get("/v1/collections/again/images/i3/content").content.startswith(b"\x89PNG")


def _same_verdict(now: dict[str, Any], then: dict[str, Any]) -> None:
    assert now["score"] == pytest.approx(then["score"], rel=1e-4, abs=1e-6)
    assert (now["p_value"], now["anomalous"]) == (then["p_value"], then["anomalous"])
