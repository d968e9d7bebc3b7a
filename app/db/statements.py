"""Statements that the two databases write differently."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Integer, Select, cast, func, literal, select
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


def chosen_numbers(session: Session, numbers: Sequence[int]) -> Select[tuple[int]]:
    """These numbers as a query, for an IN of any length: they travel as one parameter."""
    if session.get_bind().dialect.name == "sqlite":
        listed = func.json_each(json.dumps(list(numbers))).table_valued("value")
        return select(cast(listed.c.value, Integer))
    return select(func.unnest(literal(list(numbers), postgresql.ARRAY(BigInteger))))
