"""Every SQL statement about jobs."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.db.tables import CollectionRow, JobRow

ENDED = ("succeeded", "failed", "cancelled")


def find(session: Session, job_id: str, *, locked: bool = False) -> JobRow | None:
    """The job with this id, if there is one; `locked` for whoever changes what they see."""
    return session.get(JobRow, job_id, with_for_update=True if locked else None)


def collection_names(session: Session, rows: Sequence[JobRow]) -> dict[int, str]:
    """Names of the collections that these jobs work on."""
    wanted = {row.collection_id for row in rows if row.collection_id is not None}
    if not wanted:
        return {}
    statement = select(CollectionRow.id, CollectionRow.name).where(CollectionRow.id.in_(wanted))
    return {found.id: found.name for found in session.execute(statement)}


def page(session: Session, caller: Caller, before: str, limit: int, **equal: Any) -> Sequence[JobRow]:
    """Jobs that a caller sees, newest first, older than this id, whose named columns equal the values (None: any)."""
    statement = select(JobRow)
    if not caller.sees_everything:
        own = select(CollectionRow.id).where(caller.seen(CollectionRow.name))
        made = JobRow.parameters["collection"].as_string()  # by a restore, which belongs to no collection yet
        statement = statement.where(JobRow.collection_id.in_(own) | JobRow.collection_id.is_(None) & caller.seen(made))
    if before:
        statement = statement.where(JobRow.id < before)
    for name, value in equal.items():
        if value is not None:
            statement = statement.where(getattr(JobRow, name) == value)
    return session.scalars(statement.order_by(JobRow.id.desc()).limit(limit)).all()


def is_work_waiting(session: Session, kinds: Collection[str], now: datetime) -> bool:
    """Whether a job is queued or its lease has run out; a look that keeps idle pollers from writing."""
    statement = select(JobRow.id).where((JobRow.state == "queued") & JobRow.kind.in_(kinds) | _expired(now)).limit(1)
    return session.scalar(statement) is not None


def expired(session: Session, now: datetime) -> Sequence[JobRow]:
    """Running jobs whose worker has not been heard of in time."""
    return session.scalars(select(JobRow).where(_expired(now)).with_for_update(skip_locked=True)).all()


def oldest_queued(session: Session, kinds: Collection[str]) -> JobRow | None:
    """The job to begin next; on PostgreSQL locked, so that no other worker takes it."""
    statement = (
        select(JobRow)
        .where(JobRow.state == "queued", JobRow.kind.in_(kinds))
        .order_by(JobRow.created_at, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return session.scalar(statement)


def change_held(session: Session, job_id: str, owner: str, **values: Any) -> bool | None:
    """Change a job that this worker still holds: whether its end was asked for, None when it is held no more."""
    statement = (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.lease_owner == owner, JobRow.state == "running")
        .values(**values)
        .returning(JobRow.cancel_requested)
    )
    return session.execute(statement).scalar_one_or_none()


def uploads_wanted(session: Session) -> set[str]:
    """Names of the uploaded files that jobs still to be run, or running, work on."""
    rows = session.scalars(select(JobRow.parameters).where(JobRow.state.not_in(ENDED)))
    return {one["upload"]["name"] for one in rows if one.get("upload")}


def _expired(now: datetime) -> ColumnElement[bool]:
    return (JobRow.state == "running") & (JobRow.lease_until < now)
