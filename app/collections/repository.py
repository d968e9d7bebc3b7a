"""Every SQL statement about collections, their embeddings and their counter."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from app.db.statements import insert_unless_there
from app.db.tables import CollectionRow, EmbeddingRow, ImageRow, RuntimeRow, VectorRow
from app.errors import NotFound

HIDDEN = "/"  # begins the name of a collection that is not complete yet; no caller can ask for such a name


def find(session: Session, name: str, *, locked: bool = False, held: bool = False) -> CollectionRow | None:
    """The collection of this name, if there is one.

    A write that looks before it changes the row must have it `locked`: on PostgreSQL another could change it in
    between, unseen. One that adds rows which refer to it must have it `held`: others go on writing, none deletes it.
    """
    statement = select(CollectionRow).where(CollectionRow.name == name)
    if locked or held:
        statement = statement.with_for_update(read=not locked, key_share=not locked)
    return session.scalar(statement)


def add(session: Session, name: str, settings: dict[str, Any], now: datetime) -> CollectionRow | None:
    """A new collection of this name without an embedding yet; None when another request was quicker."""
    values = {
        "name": name,
        "settings": settings,
        "embedding_id": 0,
        "sequence": 0,
        "created_at": now,
        "updated_at": now,
    }
    pk = session.scalar(insert_unless_there(session, CollectionRow, values).returning(CollectionRow.id))
    return None if pk is None else session.get_one(CollectionRow, pk)


def require(session: Session, name: str, *, locked: bool = False, held: bool = False) -> CollectionRow:
    """The collection of this name; see `find`. Raises NotFound."""
    row = find(session, name, locked=locked, held=held)
    if row is None:
        raise NotFound(f"There is no collection `{name}`; PUT /v1/collections/{name} makes one.", "collection_unknown")
    return row


def page(session: Session, seen: ColumnElement[bool], after: str, limit: int) -> Sequence[CollectionRow]:
    """Collections that are `seen`, in order of name, after this name."""
    statement = (
        select(CollectionRow)
        .where(seen, CollectionRow.name > after, ~CollectionRow.name.startswith(HIDDEN))
        .order_by(CollectionRow.name)
        .limit(limit)
    )
    return session.scalars(statement).all()


def embedding(session: Session, row: CollectionRow) -> EmbeddingRow:
    """The active embedding of a collection."""
    return session.get_one(EmbeddingRow, row.embedding_id)


def runtime(session: Session, row: CollectionRow) -> dict[str, Any] | None:
    """What computed one of the active embedding's vectors, with which all others may be compared; None without any."""
    statement = (
        select(RuntimeRow.description)
        .join(VectorRow, VectorRow.runtime_id == RuntimeRow.id)
        .where(VectorRow.embedding_id == row.embedding_id)
        .limit(1)
    )
    return session.scalar(statement)


def add_embedding(session: Session, collection_id: int, facts: dict[str, Any], now: datetime) -> EmbeddingRow:
    """A new embedding version of a collection."""
    row = EmbeddingRow(collection_id=collection_id, created_at=now, **facts)
    session.add(row)
    session.flush()
    return row


def replace_embedding(session: Session, row: CollectionRow, facts: dict[str, Any], now: datetime) -> None:
    """Give a collection without images another network; versions of the old one have nothing to stand on any more."""
    before = list(session.scalars(select(EmbeddingRow.id).where(EmbeddingRow.collection_id == row.id)))
    row.embedding_id = add_embedding(session, row.id, facts, now).id
    row.previous_embedding_id = None
    session.flush()
    session.execute(delete(EmbeddingRow).where(EmbeddingRow.id.in_(before)))


def next_sequence(session: Session, collection_id: int, now: datetime) -> int:
    """The next number of the collection's counter, taken inside the writing transaction.

    It is the first statement of every write, so that writers of one collection follow one another and a follower
    never skips a number. Raises NotFound when the collection was deleted meanwhile.
    """
    statement = (
        update(CollectionRow)
        .where(CollectionRow.id == collection_id)
        .values(sequence=CollectionRow.sequence + 1, updated_at=now)
        .returning(CollectionRow.sequence)
    )
    sequence = session.execute(statement).scalar_one_or_none()
    if sequence is None:
        raise NotFound("The collection was deleted meanwhile.", "collection_unknown")
    return sequence


def role_counts(session: Session, collection_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many images of each role these collections hold."""
    counts: dict[int, dict[str, int]] = {
        one: dict.fromkeys(("normal", "anomalous", "unlabelled", "example"), 0) for one in collection_ids
    }
    statement = (
        select(ImageRow.collection_id, ImageRow.role, func.count())
        .where(ImageRow.collection_id.in_(collection_ids))
        .group_by(ImageRow.collection_id, ImageRow.role)
    )
    for collection_id, role, count in session.execute(statement):
        counts[collection_id][role] = count
    return counts


def drop(session: Session, collection_id: int) -> None:
    """Delete a collection with everything that belongs to it."""
    session.execute(delete(CollectionRow).where(CollectionRow.id == collection_id))
