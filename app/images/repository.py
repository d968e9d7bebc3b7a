"""Every SQL statement about images and their vectors."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, CursorResult, Row, delete, insert, inspect, literal, select
from sqlalchemy.orm import Session

from app.db.statements import chosen_numbers, insert_unless_there
from app.db.tables import DeletionRow, ImageRow, RuntimeRow, VectorRow
from app.projections import Versions

EXAMPLE = "example"
PAGE_ROWS = 4096
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


def facts(session: Session, collection_id: int, *columns: Any, **equal: str | None) -> Iterator[Row[Any]]:
    """These columns of every image whose named columns equal the values given (None: any), in order of arrival.

    Plain rows, streamed: a million of them as objects of the session would take gigabytes.
    """
    statement = select(*columns).where(ImageRow.collection_id == collection_id)
    for name, value in equal.items():
        if value is not None:
            statement = statement.where(getattr(ImageRow, name) == value)
    yield from session.execute(statement.order_by(ImageRow.id), execution_options={"yield_per": PAGE_ROWS})


def facts_of(session: Session, collection_id: int, ids: Iterable[str], *columns: Any) -> Iterator[Row[Any]]:
    """These columns of the images with these ids, each once; plain rows, some hundred at a time."""
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), PARAMETERS_MAX):
        some = wanted[start : start + PARAMETERS_MAX]
        statement = select(*columns).where(ImageRow.collection_id == collection_id, ImageRow.image_id.in_(some))
        yield from session.execute(statement).all()


def runtime_id(session: Session, description: dict[str, Any]) -> int:
    """The row of this engine, precision and versions, made when new."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    known = select(RuntimeRow.id).where(RuntimeRow.digest == digest)
    found = session.scalar(known)
    if found is None:
        # Writers of other collections may be making the same row: theirs is as good.
        session.execute(insert_unless_there(session, RuntimeRow, {"digest": digest, "description": description}))
        found = session.execute(known).scalar_one()
    return found


def store(
    session: Session, versions: Versions, runtime: int, images: Sequence[tuple[ImageRow, NDArray[np.float32]]]
) -> None:
    """Store images with their vectors under every version, in place of any earlier ones; given are the base's.

    New images are rows that the session does not know. They are inserted together: adding them to the session would
    cost a statement for each on SQLite.
    """
    if not images:
        return
    known = [row.id for row, _ in images if row.id is not None]
    new = [row for row, _ in images if row.id is None]
    if new:
        pks = dict(session.execute(insert(ImageRow).returning(ImageRow.image_id, ImageRow.id), _values(new)).all())
        for row in new:
            row.id = pks[row.image_id]
    for start in range(0, len(known), PARAMETERS_MAX):
        some = known[start : start + PARAMETERS_MAX]
        old = delete(VectorRow).where(VectorRow.image_pk.in_(some))
        session.execute(old, execution_options={"synchronize_session": False})
    vectors = [
        {
            "image_pk": row.id,
            "embedding_id": embedding_id,
            "runtime_id": runtime,
            "vector": vector.astype("<f4").tobytes(),
        }
        for embedding_id, found in versions.of_base(np.stack([vector for _, vector in images])).items()
        for (row, _), vector in zip(images, found, strict=True)
    ]
    session.execute(insert(VectorRow), vectors)


def stored_vectors(session: Session, embedding_id: int, pks: Sequence[int]) -> dict[int, bytes]:
    """The vectors of these images under a version of the embedding, by key."""
    statement = select(VectorRow.image_pk, VectorRow.vector).where(
        VectorRow.embedding_id == embedding_id, VectorRow.image_pk.in_(chosen_numbers(session, pks))
    )
    return {found.image_pk: found.vector for found in session.execute(statement)}


def _values(rows: Iterable[ImageRow]) -> list[dict[str, Any]]:
    names = [column.key for column in inspect(ImageRow).column_attrs if column.key != "id"]
    return [{name: getattr(row, name) for name in names} for row in rows]


def remove(session: Session, collection_id: int, pks: Sequence[int], sequence: int) -> int:
    """How many of these images were deleted; followers are told."""
    return _remove(session, collection_id, [ImageRow.id.in_(chosen_numbers(session, pks))], sequence) if pks else 0


def remove_equal(session: Session, collection_id: int, sequence: int, **equal: str | None) -> int:
    """How many images were deleted: all whose named columns equal the values given (None: any); followers are told."""
    chosen = [getattr(ImageRow, name) == value for name, value in equal.items() if value is not None]
    return _remove(session, collection_id, chosen, sequence)


def _remove(session: Session, collection_id: int, chosen: Iterable[ColumnElement[bool]], sequence: int) -> int:
    """Three statements however many images there are: a million, one by one, take minutes."""
    images = select(ImageRow.id).where(ImageRow.collection_id == collection_id, *chosen)
    noted = images.add_columns(ImageRow.collection_id, literal(sequence))
    session.execute(
        insert(DeletionRow).from_select([DeletionRow.image_pk, DeletionRow.collection_id, DeletionRow.sequence], noted)
    )
    quietly = {"synchronize_session": False}
    # Not left to the foreign key alone, which looks the vectors of each image up by itself.
    session.execute(delete(VectorRow).where(VectorRow.image_pk.in_(images)), execution_options=quietly)
    gone = delete(ImageRow).where(ImageRow.collection_id == collection_id, *chosen)
    done = cast(CursorResult[Any], session.execute(gone, execution_options=quietly))
    return done.rowcount


def give_role(row: ImageRow, role: str) -> None:
    """Give an image a role; of what becomes an example it is kept what it was, for when it is one no more."""
    if role == EXAMPLE and row.role != EXAMPLE:
        row.role_before = row.role if row.id is not None else None
    elif role != EXAMPLE:
        row.role_before = None
    row.role = role


def change_roles(rows: Iterable[ImageRow], role: str, sequence: int, now: datetime) -> None:
    """Give images another role, for as long as that may be undone: what an example was before stays kept."""
    for row in rows:
        row.role, row.sequence, row.updated_at = role, sequence, now
