"""Statements that the two databases write differently."""

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import Insert

from app.db.tables import Base

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_unless_there(session: Session, table: type[Base], values: dict[str, Any]) -> Insert:
    """An INSERT that does nothing where a row with the same unique value is there, or about to be.

    On PostgreSQL it waits for the transaction that makes that row, so that the row can be read afterwards.
    """
    insert: Insert = INSERTS[session.get_bind().dialect.name](table).values(**values).on_conflict_do_nothing()
    return insert
