"""Every SQL statement about feedback."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import FeedbackRow


def find(session: Session, collection_id: int, feedback_id: str) -> FeedbackRow | None:
    """The feedback with this id in this collection, if there is one."""
    row = session.get(FeedbackRow, feedback_id)
    return row if row is not None and row.collection_id == collection_id else None


def page(session: Session, collection_id: int, before: str, limit: int) -> Sequence[FeedbackRow]:
    """Feedback on a collection, newest first, older than this id."""
    statement = select(FeedbackRow).where(FeedbackRow.collection_id == collection_id)
    if before:
        statement = statement.where(FeedbackRow.id < before)
    return session.scalars(statement.order_by(FeedbackRow.id.desc()).limit(limit)).all()


def later_on_image(session: Session, row: FeedbackRow) -> FeedbackRow | None:
    """The newest feedback on the same image that came after this one and stands."""
    statement = (
        select(FeedbackRow)
        .where(
            FeedbackRow.collection_id == row.collection_id,
            FeedbackRow.image_id == row.image_id,
            FeedbackRow.id > row.id,
            FeedbackRow.undone_at.is_(None),
        )
        .order_by(FeedbackRow.id.desc())
        .limit(1)
    )
    return session.scalar(statement)
