"""Faults are met on SQLite and on a real PostgreSQL."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import embedders_are_kept, settings
from tests.record.conftest import PostgreSQL, postgresql

__all__ = ["embedders_are_kept", "postgresql", "settings"]
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def record_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a record without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'record.db'}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"faults_{os.getpid()}_{next(_numbers)}"
    yield server.create(name, template="template0")
    server.drop(name)
