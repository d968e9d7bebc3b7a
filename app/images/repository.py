"""Every SQL statement about images and their vectors."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import CollectionRow, DeletionRow, ImageRow, RuntimeRow, VectorRow

PARAMETERS_MAX = 500  # of one IN (…), well below what any database takes


def by_ids(session: Session, collection_id: int, ids: Iterable[str]) -> dict[str, ImageRow]:
    """The images with these ids, by id."""
    wanted = list(ids)
    found: dict[str, ImageRow] = {}
    for start in range(0, len(wanted), PARAMETERS_MAX):
        some = wanted[start : start + PARAMETERS_MAX]
        statement = select(ImageRow).where(ImageRow.collection_id == collection_id, ImageRow.image_id.in_(some))
        found.update((row.image_id, row) for row in session.scalars(statement))
    return found


def page(session: Session, collection_id: int, after: int, limit: int, **equal: str | None) -> Sequence[ImageRow]:
    """Images in order of arrival after this row, whose named columns equal the values given (None: any)."""
    statement = select(ImageRow).where(ImageRow.collection_id == collection_id, ImageRow.id > after)
    for name, value in equal.items():
        if value is not None:
            statement = statement.where(getattr(ImageRow, name) == value)
    return session.scalars(statement.order_by(ImageRow.id).limit(limit)).all()


def has_embedding(session: Session, collection_id: int, embedding_id: int) -> bool:
    """Whether this is the collection's active embedding still."""
    return session.scalar(select(CollectionRow.embedding_id).where(CollectionRow.id == collection_id)) == embedding_id


def runtime_id(session: Session, description: dict[str, Any]) -> int:
    """The row of this engine, precision and versions, made when new."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    row = session.scalar(select(RuntimeRow).where(RuntimeRow.digest == digest))
    if row is None:
        row = RuntimeRow(digest=digest, description=description)
        session.add(row)
        session.flush()
    return row.id


def set_vector(session: Session, image_pk: int, embedding_id: int, runtime: int, vector: NDArray[np.float32]) -> None:
    """Store an image's embedding in place of any earlier one."""
    session.merge(
        VectorRow(
            image_pk=image_pk, embedding_id=embedding_id, runtime_id=runtime, vector=vector.astype("<f4").tobytes()
        )
    )


def remove(session: Session, collection_id: int, pks: Sequence[int], sequence: int) -> None:
    """Delete images and note it for followers."""
    for start in range(0, len(pks), PARAMETERS_MAX):
        some = pks[start : start + PARAMETERS_MAX]
        session.execute(delete(ImageRow).where(ImageRow.collection_id == collection_id, ImageRow.id.in_(some)))
        session.add_all(DeletionRow(collection_id=collection_id, image_pk=pk, sequence=sequence) for pk in some)


def change_roles(rows: Iterable[ImageRow], role: str, sequence: int, now: datetime) -> None:
    """Give images another role."""
    for row in rows:
        row.role, row.sequence, row.updated_at = role, sequence, now
