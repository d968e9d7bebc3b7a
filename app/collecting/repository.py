"""Every SQL statement of collecting what nobody needs any more."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from app.db.tables import CollectionRow, DeletionRow


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


def _is_old(before: datetime) -> ColumnElement[bool]:
    return DeletionRow.created_at.is_(None) | (DeletionRow.created_at < before)
