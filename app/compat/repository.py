"""Every SQL statement of the compatible paths."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import ScorerRow


def has_scorer(session: Session, collection_id: int, name: str) -> bool:
    """Whether a collection has a scorer of this name, fitted or not."""
    statement = select(ScorerRow.id).where(ScorerRow.collection_id == collection_id, ScorerRow.name == name)
    return session.scalar(statement) is not None
