"""Every SQL statement of collecting what nobody needs any more."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from app.db.tables import CollectionRow, DeletionRow, IdempotencyRow, ImageRow, JobRow
from app.jobs.repository import ENDED

PARAMETERS_MAX = 500  # of one IN (…), well below what any database takes
# A cleaning is needed to undo it, and what else a collection rests on stays with it; these only told their result.
FORGOTTEN_KINDS = ("calibrate", "compact", "compress", "duplicates", "import", "index", "restore", "snapshot")
HOLDING_KINDS = ("restore", "snapshot", "fit")


def collections_with_deletions(session: Session, before: datetime) -> Sequence[int]:
    """Collections that hold deletions from before a moment."""
    return session.scalars(select(DeletionRow.collection_id).where(_is_old(before)).distinct()).all()


def prune_deletions(session: Session, collection_id: int, before: datetime, limit: int) -> int:
    """How many deletions from before a moment were dropped, oldest first; the collection notes up to which change.

    Some more than `limit` may go: those of one change go together, for that is what a follower is told by.
    """
    row = session.scalar(select(CollectionRow).where(CollectionRow.id == collection_id).with_for_update())
    if row is None:
        return 0
    oldest = (
        select(DeletionRow.sequence)
        .where(DeletionRow.collection_id == collection_id, _is_old(before))
        .order_by(DeletionRow.sequence)
        .limit(limit)
    )
    sequences = session.scalars(oldest).all()
    if not sequences:
        return 0
    row.pruned_sequence = max(row.pruned_sequence, sequences[-1])
    statement = delete(DeletionRow).where(
        DeletionRow.collection_id == collection_id, DeletionRow.sequence <= row.pruned_sequence
    )
    return len(session.scalars(statement.returning(DeletionRow.id)).all())


def referenced(session: Session, hashes: Sequence[str]) -> set[str]:
    """Those of these hashes that an image has, of whatever collection."""
    found: set[str] = set()
    for start in range(0, len(hashes), PARAMETERS_MAX):
        some = hashes[start : start + PARAMETERS_MAX]
        found.update(session.scalars(select(ImageRow.sha256).where(ImageRow.sha256.in_(some)).distinct()))
    return found


def are_held(session: Session) -> bool:
    """Whether a job runs that needs bytes which no row may name.

    A restore stores all bytes first, and the rows that name them perhaps hours later. Snapshots and fits list images at
    one moment and read their bytes afterwards, whoever deletes the images meanwhile.
    """
    statement = select(JobRow.id).where(JobRow.kind.in_(HOLDING_KINDS), JobRow.state == "running").limit(1)
    return session.scalar(statement) is not None


def old_jobs(session: Session, before: datetime, limit: int) -> Sequence[str]:
    """Jobs that ended before a moment and of which nothing is needed any more, oldest first."""
    statement = (
        select(JobRow.id)
        .where(JobRow.state.in_(ENDED), JobRow.kind.in_(FORGOTTEN_KINDS), JobRow.finished_at < before)
        .order_by(JobRow.id)
        .limit(limit)
    )
    return session.scalars(statement).all()


def drop_jobs(session: Session, job_ids: Sequence[str]) -> None:
    """Forget these jobs, with their reports."""
    session.execute(delete(JobRow).where(JobRow.id.in_(job_ids)))


def old_keys(session: Session, before: datetime) -> int:
    """How many answers under an Idempotency-Key were given before a moment."""
    return (
        session.scalar(select(func.count()).select_from(IdempotencyRow).where(IdempotencyRow.created_at < before)) or 0
    )


def drop_keys(session: Session, before: datetime) -> None:
    """Forget the answers under an Idempotency-Key from before a moment."""
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < before))


def old_deletions(session: Session, before: datetime) -> int:
    """How many deletions were made before a moment."""
    return session.scalar(select(func.count()).select_from(DeletionRow).where(_is_old(before))) or 0


def _is_old(before: datetime) -> ColumnElement[bool]:
    return DeletionRow.created_at.is_(None) | (DeletionRow.created_at < before)
