"""Every SQL statement about classes that is not about images as such."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import ImageRow
from app.images.repository import PARAMETERS_MAX

EXAMPLE = "example"


def examples(session: Session, collection_id: int, label: str) -> Sequence[ImageRow]:
    """The images of a class, in order of arrival."""
    statement = select(ImageRow).where(
        ImageRow.collection_id == collection_id, ImageRow.role == EXAMPLE, ImageRow.label == label
    )
    return session.scalars(statement.order_by(ImageRow.id)).all()


def arrivals(session: Session, pks: Sequence[int]) -> dict[int, datetime]:
    """When each of these images was stored."""
    found: dict[int, datetime] = {}
    for start in range(0, len(pks), PARAMETERS_MAX):
        some = pks[start : start + PARAMETERS_MAX]
        rows = session.execute(select(ImageRow.id, ImageRow.created_at).where(ImageRow.id.in_(some)))
        found.update((pk, moment) for pk, moment in rows)
    return found


def relabel(rows: Iterable[ImageRow], role: str, label: str | None, sequence: int, now: datetime) -> None:
    """Give images another role and label."""
    for row in rows:
        row.role, row.label, row.sequence, row.updated_at = role, label, sequence, now
