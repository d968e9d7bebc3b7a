"""Every SQL statement about feedback."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import FeedbackRow, FitRow, ScorerRow

ROLELESS = ("pair", "rating")  # kinds that change no role


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
            FeedbackRow.kind.not_in(ROLELESS),
        )
        .order_by(FeedbackRow.id.desc())
        .limit(1)
    )
    return session.scalar(statement)


def compared(session: Session, collection_id: int) -> list[tuple[str, str]]:
    """Both images of every comparison that stands, oldest first, whatever became of them."""
    statement = (
        select(FeedbackRow.image_id, FeedbackRow.other_image_id)
        .where(FeedbackRow.collection_id == collection_id, FeedbackRow.kind == "pair", FeedbackRow.undone_at.is_(None))
        .order_by(FeedbackRow.id)
    )
    return [(left, right) for left, right in session.execute(statement) if right is not None]


def serving(session: Session, collection_id: int, embedding_id: int) -> Sequence[tuple[str, str]]:
    """Name and method of every fit that serves on this embedding, newest first."""
    statement = (
        select(ScorerRow.name, FitRow.method)
        .join(FitRow, FitRow.id == ScorerRow.fit_id)
        .where(ScorerRow.collection_id == collection_id, FitRow.embedding_id == embedding_id)
        .order_by(FitRow.id.desc())
    )
    return [(name, method) for name, method in session.execute(statement)]
