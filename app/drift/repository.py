"""Every SQL statement about counted p-values."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from app.db.statements import insert_unless_there
from app.db.tables import CollectionRow, PValueRow
from models.drift import Counted, from_lists, nothing_counted


class Key(NamedTuple):
    """What is counted together."""

    collection_id: int
    scorer: str
    at: datetime


def add(session: Session, counts: Mapping[Key, Counted]) -> None:
    """Add counts to those in the record; of collections that are gone, none."""
    wanted = {key.collection_id for key in counts}
    # Locked, so that none is deleted before its row is there; in order, so that two servers never wait for each other.
    found = select(CollectionRow.id).where(CollectionRow.id.in_(wanted)).order_by(CollectionRow.id)
    there = set(session.scalars(found.with_for_update(read=True, key_share=True)))
    nothing = _columns(nothing_counted())
    for key in sorted(counts):
        if key.collection_id not in there:
            continue
        session.execute(insert_unless_there(session, PValueRow, {**key._asdict(), **nothing}))
        row = session.scalars(select(PValueRow).where(*_is(key)).with_for_update()).one()
        for name, value in _columns(_counted(row) + counts[key]).items():
            setattr(row, name, value)
        session.flush()


def hours(
    session: Session, collection_id: int, scorer: str, since: datetime, until: datetime
) -> list[tuple[datetime, Counted]]:
    """What was counted from a moment to before another, hour by hour, oldest first."""
    statement = (
        select(PValueRow)
        .where(
            PValueRow.collection_id == collection_id,
            PValueRow.scorer == scorer,
            PValueRow.at >= since,
            PValueRow.at < until,
        )
        .order_by(PValueRow.at)
    )
    return [(row.at, _counted(row)) for row in session.scalars(statement)]


def scorers(session: Session, collection_id: int) -> Sequence[str]:
    """Scorers of a collection of which something is counted."""
    statement = select(PValueRow.scorer).where(PValueRow.collection_id == collection_id).distinct()
    return session.scalars(statement.order_by(PValueRow.scorer)).all()


def settings_of(session: Session, collection_id: int) -> dict[str, Any] | None:
    """The settings of a collection, if there is one."""
    return session.scalar(select(CollectionRow.settings).where(CollectionRow.id == collection_id))


def has_old(session: Session, before: datetime) -> bool:
    """Whether anything was counted before a moment."""
    return session.scalar(select(PValueRow.at).where(PValueRow.at < before).limit(1)) is not None


def prune(session: Session, before: datetime) -> None:
    """Forget what was counted before a moment."""
    session.execute(delete(PValueRow).where(PValueRow.at < before))


def _is(key: Key) -> tuple[ColumnElement[bool], ...]:
    return (
        PValueRow.collection_id == key.collection_id,
        PValueRow.scorer == key.scorer,
        PValueRow.at == key.at,
    )


def _counted(row: PValueRow) -> Counted:
    return from_lists(row.counts, row.expected, row.calibration_n)


def _columns(one: Counted) -> dict[str, object]:
    return {"counts": one.counts.tolist(), "expected": one.expected.tolist(), "calibration_n": one.calibration_n}
