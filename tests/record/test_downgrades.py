"""Every migration can be taken back with images in the record, and be made again."""

from pathlib import Path
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from starlette.testclient import TestClient

from app.db.engine import Database, _alembic_configuration
from app.db.tables import Base
from app.main import create_app
from app.settings import Settings
from tests.conftest import add, png

C = "/v1/collections/c"


def shape(database: Database) -> dict[str, set[tuple[str, bool]]]:
    """Each table's columns, and whether they may be empty."""
    with database.engine.connect() as connection:
        found = inspect(connection)
        return {
            table: {(one["name"], bool(one["nullable"])) for one in found.get_columns(table)}
            for table in found.get_table_names()
        }


def to(database: Database, revision: str, *, up: bool) -> None:
    with database.engine.execution_options(oddity_writes=True).begin() as connection:
        step = alembic.command.upgrade if up else alembic.command.downgrade
        step(_alembic_configuration(connection), revision)


def revisions(database: Database) -> list[str]:
    """From the first to the newest."""
    with database.engine.connect() as connection:
        scripts = ScriptDirectory.from_config(_alembic_configuration(connection))
    return [one.revision for one in scripts.walk_revisions()][::-1]


@pytest.mark.slow
def test_every_migration_can_be_taken_back_and_made_again(unmigrated_url: str, tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path / "data", database_url=unmigrated_url, weights="stand-in", image_size=32, threads=1
    )
    database = Database(unmigrated_url)
    steps = revisions(database)
    shapes: dict[str, Any] = {}
    for revision in steps:
        to(database, revision, up=True)
        shapes[revision] = shape(database)
    names = {f"i{n}": png(n) for n in range(6)}
    with TestClient(create_app(settings)) as client:
        add(client, "c", names)
        for given in (
            {"kind": "pair", "left": "i0", "right": "i1", "answer": "left"},
            {"kind": "rating", "id": "i2", "value": 2.5, "rater": "anna"},
        ):
            client.post(f"{C}/feedback", json=given).raise_for_status()
    for revision in steps[-2::-1]:
        to(database, revision, up=False)
        assert shape(database) == shapes[revision], f"going back to {revision} leaves other tables"
        with database.engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM images")).scalar_one() == 6
    database.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()
    with TestClient(create_app(settings)) as client:
        assert {one["id"] for one in client.get(f"{C}/images").json()["images"]} == set(names)
        content = client.get(f"{C}/images/i3/content")
        assert content.content == names["i3"]
