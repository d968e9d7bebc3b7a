"""Every SQL statement about registered groups."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from app.db.tables import DeletionRow, GroupMemberRow, GroupRow


def find(session: Session, collection_id: int, name: str) -> GroupRow | None:
    """The group of this name, if there is one."""
    return session.scalar(select(GroupRow).where(GroupRow.collection_id == collection_id, GroupRow.name == name))


def put(
    session: Session,
    collection_id: int,
    name: str,
    members: Sequence[int],
    metadata: dict[str, Any],
    sequence: int,
    now: datetime,
) -> bool:
    """Register a set under a name in place of any earlier one; whether it is new."""
    row = find(session, collection_id, name)
    is_new = row is None
    if row is None:
        row = GroupRow(collection_id=collection_id, name=name, created_at=now)
        session.add(row)
    row.details, row.sequence, row.updated_at = metadata, sequence, now
    session.flush()
    session.execute(delete(GroupMemberRow).where(GroupMemberRow.group_pk == row.id))
    if members:
        rows = [{"group_pk": row.id, "position": position, "image_pk": pk} for position, pk in enumerate(members)]
        session.execute(insert(GroupMemberRow), rows)
    return is_new


def remove(session: Session, row: GroupRow, sequence: int) -> None:
    """Forget a group and note it for followers; its images stay."""
    session.execute(delete(GroupRow).where(GroupRow.id == row.id))
    session.add(DeletionRow(collection_id=row.collection_id, group_pk=row.id, sequence=sequence))
