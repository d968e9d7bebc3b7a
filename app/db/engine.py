"""The database: engine, sessions for reading and writing, migrations.

SQLite beside the data by default, PostgreSQL by URL; both promise the same: a commit is durable, a reading session sees
one state of the record, a writing session all or nothing.
"""

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import alembic.command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Select, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from app.db.errors import DatabaseUnsupported

Value = TypeVar("Value")
MIGRATIONS = Path(__file__).resolve().parent.parent.parent / "migrations"
MIGRATION_LOCK = zlib.crc32(b"oddity migrations")  # of PostgreSQL's advisory locks, by any number that is ours alone
POSTGRESQL = "postgresql+psycopg"
CONNECT_S = 10
WAL_KEPT_BYTES = 64 << 20  # a larger log of a large transaction is cut down to this by the first write after it
# More connections than one server process works on requests at the same time only take from the other processes:
# PostgreSQL allows 100 in all by default.
POOLS: dict[str, dict[str, Any]] = {
    "sqlite": {"pool_size": 20, "max_overflow": 40},
    "postgresql": {"pool_size": 8, "max_overflow": 16, "pool_pre_ping": True},
}


class Database:
    """Sessions on the record.

    SQLite runs in WAL mode with `synchronous=FULL` (a commit survives a power cut), foreign keys on, and writers
    begin with BEGIN IMMEDIATE: a transaction that reads first and writes later would fail as busy whatever the
    timeout.

    PostgreSQL is read REPEATABLE READ, so that a session of several statements sees one state, and written READ
    COMMITTED: a write first locks its collection's row, and each statement after that sees everything that earlier
    writers of the collection committed. `synchronous_commit` is asked for, whatever the server is set to.
    """

    def __init__(self, url: str, busy_s: float = 30.0) -> None:
        parsed = _with_driver(make_url(url))
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = _sqlite_arguments(busy_s) if self.is_sqlite else _postgresql_arguments(busy_s)
        try:
            self.engine = create_engine(
                parsed, connect_args=arguments, pool_timeout=busy_s, **POOLS[parsed.get_backend_name()]
            )
        except ModuleNotFoundError as error:
            raise DatabaseUnsupported(
                "PostgreSQL needs the driver psycopg, which is not installed: pip install 'oddity[postgresql]'."
            ) from error
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(oddity_writes=True)
        self._reading = self.engine
        self._looking = self.engine.execution_options(oddity_looks=True)
        if not self.is_sqlite:
            self._writing = self.engine.execution_options(isolation_level="READ COMMITTED")
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._looking = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on one consistent state of the record."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are committed (durably) when the block ends, or not at all."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def value(self, statement: Select[Value]) -> Value | None:
        """The one value that a statement finds, as the record has it now; the cheapest look there is."""
        with self._looking.connect() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def row(self, statement: str, **parameters: Any) -> tuple[Any, ...] | None:
        """The one row that a SELECT with `:named` parameters finds, as `value`; on SQLite in a sixth of the time."""
        if self.is_sqlite:
            connection = self.engine.raw_connection()
            try:
                found: list[tuple[Any, ...]] = connection.cursor().execute(statement, parameters).fetchmany(2)
                assert len(found) < 2
                return found[0] if found else None
            except sqlite3.Error:
                pass  # met again below, and raised as callers know it
            finally:
                connection.close()
        with self._looking.connect() as looking:
            row = looking.execute(text(statement), parameters).one_or_none()
            return None if row is None else tuple(row)

    @contextmanager
    def lock(self, name: str, *, shared: bool) -> Iterator[bool]:
        """A lock among all processes of this record, held while the block runs; yields whether it was got.

        Many may share it, and wait for that. Who wants it alone does not wait, and is told no. It goes with its
        holder, however that ends.
        """
        if self.is_sqlite:
            with _file_lock(f"{self.engine.url.database}.{name}.lock", shared=shared) as is_held:
                yield is_held
            return
        function = "pg_advisory_xact_lock_shared" if shared else "pg_try_advisory_xact_lock"
        key = zlib.crc32(f"oddity {name}".encode())
        with self._writing.begin() as connection:
            answer = connection.execute(text(f"SELECT {function}(:key)"), {"key": key}).scalar()
            yield shared or bool(answer)

    def migrate(self) -> None:
        """Bring the tables to the newest revision, all steps in one transaction.

        Processes that start at the same moment take turns; all but the first find nothing left to do.
        """
        with self._writing.begin() as connection:
            if not self.is_sqlite:  # SQLite's writers take turns anyway
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            alembic.command.upgrade(_alembic_configuration(connection), "head")

    def revisions(self) -> tuple[str, str]:
        """The revision that this version's migrations lead to, and the one that the tables are at.

        Raises what the database raises when it cannot answer.
        """
        with self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        return newest_revision(), found or "none"

    def check(self) -> None:
        """Raise what the database raises when it cannot answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


@cache
def newest_revision() -> str:
    """The revision that the migrations of this version lead to."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or "none"


@contextmanager
def _file_lock(path: str, *, shared: bool) -> Iterator[bool]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _with_driver(url: URL) -> URL:
    """The URL with the driver that this service uses, as nobody should have to know its name."""
    if url.drivername in ("postgres", "postgresql", POSTGRESQL):
        return url.set(drivername=POSTGRESQL)
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return url
    raise DatabaseUnsupported(f"`database_url` must begin with sqlite:/// or postgresql://; got {url.drivername}://.")


def _sqlite_arguments(busy_s: float) -> dict[str, Any]:
    return {"timeout": busy_s}


def _postgresql_arguments(busy_s: float) -> dict[str, Any]:
    settings = {"lock_timeout": f"{round(busy_s * 1000)}ms", "synchronous_commit": "on"}
    return {
        "connect_timeout": CONNECT_S,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "application_name": "oddity",
    }


def _alembic_configuration(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    configuration.attributes["connection"] = connection
    return configuration


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours to send
    # Half of a page of 4 KiB, SQLite's own choice, would lie idle behind a vector of 512 numbers. New files only.
    # Some builds write zeros over whatever is deleted, which doubles what a large deletion writes.
    for pragma in (
        "page_size=8192",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=FAST",
        f"journal_size_limit={WAL_KEPT_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("oddity_looks", False):  # a single SELECT is a transaction by itself
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("oddity_writes", False) else "BEGIN")
