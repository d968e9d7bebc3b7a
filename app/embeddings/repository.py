"""Every SQL statement about versions of an embedding."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from app.db.tables import CollectionRow, EmbeddingRow, FitRow, ImageRow, JobRow, ScorerRow, VectorRow
from app.jobs.repository import ENDED
from app.projections import base_of, family

LABELLED_ROLES = ("normal", "anomalous", "example")


def versions(session: Session, collection: CollectionRow) -> Sequence[EmbeddingRow]:
    """The versions of a collection's embedding, oldest first."""
    return family(session, base_of(session, collection.id))


def find(session: Session, collection: CollectionRow, version: int) -> EmbeddingRow | None:
    """This version of a collection's embedding, if there is one."""
    row = session.get(EmbeddingRow, version)
    if row is None or row.collection_id != collection.id:
        return None
    return row


def of_job(session: Session, job_id: str) -> EmbeddingRow | None:
    """The version that a job has learnt."""
    return session.scalar(select(EmbeddingRow).where(EmbeddingRow.job_id == job_id))


def drop(session: Session, row: EmbeddingRow) -> None:
    """Forget a version with its vectors."""
    back = update(CollectionRow).where(CollectionRow.previous_embedding_id == row.id)
    session.execute(back.values(previous_embedding_id=None))
    session.execute(delete(VectorRow).where(VectorRow.embedding_id == row.id))
    session.execute(delete(EmbeddingRow).where(EmbeddingRow.id == row.id))


def drop_given_up(session: Session, collection_id: int) -> None:
    """Forget versions that were never completed and whose job has ended."""
    is_living = exists().where(JobRow.id == EmbeddingRow.job_id, JobRow.state.not_in(ENDED))
    statement = select(EmbeddingRow).where(
        EmbeddingRow.collection_id == collection_id, EmbeddingRow.is_complete.is_(False), ~is_living
    )
    for row in session.scalars(statement).all():
        drop(session, row)


def _without(base_id: int, embedding_id: int) -> Any:
    """Vectors of the base of images that have none under this version."""
    there = exists().where(VectorRow.image_pk == _BASE.c.image_pk, VectorRow.embedding_id == embedding_id)
    return (_BASE.c.embedding_id == base_id) & ~there


_BASE = VectorRow.__table__.alias("of_base")


def missing(session: Session, base_id: int, embedding_id: int, after: int, limit: int) -> Sequence[Any]:
    """Key, id, runtime and base vector, with its checksum, of images that have none under this version, in order."""
    statement = (
        select(_BASE.c.image_pk, ImageRow.image_id, _BASE.c.runtime_id, _BASE.c.vector, _BASE.c.checksum)
        .join(ImageRow, ImageRow.id == _BASE.c.image_pk)
        .where(_without(base_id, embedding_id), _BASE.c.image_pk > after)
        .order_by(_BASE.c.image_pk)
        .limit(limit)
    )
    return session.execute(statement).all()


def is_complete(session: Session, base_id: int, embedding_id: int) -> bool:
    """Whether every image has a vector under this version."""
    return session.execute(select(_BASE.c.image_pk).where(_without(base_id, embedding_id)).limit(1)).first() is None


def add_vectors(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert vectors."""
    session.execute(insert(VectorRow), list(rows))


def counts(session: Session, embedding_ids: Sequence[int]) -> dict[int, int]:
    """How many images have a vector under each version."""
    statement = (
        select(VectorRow.embedding_id, func.count())
        .where(VectorRow.embedding_id.in_(embedding_ids))
        .group_by(VectorRow.embedding_id)
    )
    return dict(session.execute(statement).all())


def classes(session: Session, collection_id: int, images_min: int) -> int:
    """How many labels at least so many images carry, of the roles that may be learnt from."""
    statement = (
        select(ImageRow.label)
        .where(ImageRow.collection_id == collection_id, ImageRow.label.is_not(None), ImageRow.role.in_(LABELLED_ROLES))
        .group_by(ImageRow.label)
        .having(func.count() >= images_min)
    )
    return len(session.scalars(statement).all())


def activate(session: Session, collection: CollectionRow, row: EmbeddingRow, sequence: int, now: datetime) -> None:
    """Have every process answer by this version; the one that was active can be gone back to."""
    collection.previous_embedding_id = collection.embedding_id
    collection.embedding_id = row.id
    collection.embedding_sequence = sequence
    row.activated_at = now
    session.flush()


def stale_scorers(session: Session, collection: CollectionRow) -> list[str]:
    """Fitted scorers that do not serve the active version."""
    statement = (
        select(ScorerRow.name)
        .join(FitRow, FitRow.id == ScorerRow.fit_id)
        .where(ScorerRow.collection_id == collection.id, FitRow.embedding_id != collection.embedding_id)
        .order_by(ScorerRow.name)
    )
    return list(session.scalars(statement))
