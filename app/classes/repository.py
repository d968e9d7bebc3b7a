"""Every SQL statement about classes that is not about images as such."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import ImageRow
from app.images.repository import EXAMPLE, PARAMETERS_MAX, give_role

RELEASED = "unlabelled"  # the role of a released image of which it is not known what it was: no say in any score


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


def enlist(rows: Iterable[ImageRow], label: str, sequence: int, now: datetime) -> None:
    """Make images examples of a class."""
    for row in rows:
        give_role(row, EXAMPLE)
        row.label, row.sequence, row.updated_at = label, sequence, now


def release(rows: Iterable[ImageRow], role: str | None, sequence: int, now: datetime) -> None:
    """Take images out of their class: they get this role, or else the one that each had before, and no label."""
    for row in rows:
        give_role(row, role or row.role_before or RELEASED)
        row.label, row.sequence, row.updated_at = None, sequence, now
