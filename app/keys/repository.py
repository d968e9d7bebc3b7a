"""Every SQL statement that changes or lists keys."""

from collections.abc import Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.db.tables import AccessRow, ApiKeyRow


def count_change(session: Session) -> None:
    """Tell every process that keys have changed; first in a write, so that those who change keys take turns."""
    session.execute(update(AccessRow).values(version=AccessRow.version + 1))


def find(session: Session, name: str) -> ApiKeyRow | None:
    """The key of this id or name; an id goes first."""
    found = session.scalars(select(ApiKeyRow).where(or_(ApiKeyRow.id == name, ApiKeyRow.name == name))).all()
    return next((one for one in found if one.id == name), found[0] if found else None)


def has_name(session: Session, name: str) -> bool:
    """Whether a key is, or was, called so."""
    return session.scalar(select(ApiKeyRow.id).where(ApiKeyRow.name == name)) is not None


def every(session: Session) -> Sequence[ApiKeyRow]:
    """All keys in the order in which they were made, revoked ones too."""
    return session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at, ApiKeyRow.id)).all()
