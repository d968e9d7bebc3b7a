"""The database: engine, sessions for reading and writing, migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).resolve().parent.parent.parent / "migrations"


class Database:
    """Sessions on the record.

    SQLite runs in WAL mode with `synchronous=FULL` (a commit survives a power cut), foreign keys on, and writers
    begin with BEGIN IMMEDIATE: a transaction that reads first and writes later would fail as busy whatever the
    timeout.
    """

    def __init__(self, url: str, busy_s: float = 30.0) -> None:
        self.url = url
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"connect_args": {"timeout": busy_s}} if self.is_sqlite else {"pool_pre_ping": True}
        self.engine = create_engine(url, pool_size=20, max_overflow=40, **options)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(oddity_writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on one consistent state of the record."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are committed (durably) when the block ends, or not at all."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the tables to the newest revision, each step in a transaction."""
        with self._writing.begin() as connection:
            alembic.command.upgrade(_alembic_configuration(connection), "head")

    def check(self) -> None:
        """Raise what the database raises when it cannot answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


def _alembic_configuration(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    configuration.attributes["connection"] = connection
    return configuration


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours to send
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("oddity_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
