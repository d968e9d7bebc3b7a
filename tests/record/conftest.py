"""Every test here runs on SQLite and on a real PostgreSQL, each on a record of its own."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pgserver
import psycopg
import pytest
from sqlalchemy import URL, make_url
from starlette.testclient import TestClient

from app.core import Core
from app.db.engine import Database
from app.main import close_core, create_app, open_core
from app.settings import Settings
from tests.app.conftest import embedders_are_kept  # noqa: F401 - a fixture

TEMPLATE = "migrated"
_numbers = itertools.count()

OpenCore = Callable[[], Core]
Serve = Callable[[], AbstractContextManager[TestClient]]


class PostgreSQL:
    """A server of this run's own; each database is a copy of a migrated one, which takes no time to migrate."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.create(TEMPLATE, template="template0")
        database = Database(self.url(TEMPLATE))
        database.migrate()
        database.close()

    def url(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def create(self, name: str, template: str = TEMPLATE) -> str:
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    # Not in pytest's folder: run as root, PostgreSQL works under another user, who may not look into that one; and the
    # path of its socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="oddity-pg-"))
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield PostgreSQL(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, migrated_record: Path) -> Iterator[str]:
    """The URL of an empty record that has its tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copyfile(migrated_record, tmp_path / 'record.db')}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"record_{os.getpid()}_{next(_numbers)}"
    yield server.create(name)
    server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def unmigrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a record that has no tables yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'bare.db'}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"bare_{os.getpid()}_{next(_numbers)}"
    yield server.create(name, template="template0")
    server.drop(name)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        database_url=database_url,
        weights="stand-in",
        image_size=32,
        threads=1,
        follow_wait_s=10,
    )


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A look at the record that is none of the servers'."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def open_another(settings: Settings) -> Iterator[OpenCore]:
    """Opens the parts of a server on the record, one more at each call, as another process would have them."""
    with ExitStack() as stack:

        def another() -> Core:
            core = open_core(settings)
            stack.callback(close_core, core)
            return core

        yield another


@pytest.fixture
def core(open_another: OpenCore) -> Core:
    return open_another()


@pytest.fixture
def serve(settings: Settings) -> Serve:
    """Starts one more server on the record, with whatever settings are changed."""

    @contextmanager
    def start(**changes: object) -> Iterator[TestClient]:
        changed = settings.model_copy(update=changes)
        with TestClient(create_app(changed), raise_server_exceptions=False) as client:
            yield client

    return start


@pytest.fixture
def client(serve: Serve) -> Iterator[TestClient]:
    with serve() as client:
        yield client


@pytest.fixture
def other(client: TestClient, serve: Serve) -> Iterator[TestClient]:
    """A second server on the same record."""
    with serve() as other:
        yield other


def is_postgresql(url: str | URL) -> bool:
    return make_url(url).get_backend_name() == "postgresql"
