"""What the record knows of index files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.collections.repository import HIDDEN
from app.db.tables import CollectionRow, DeletionRow, ImageRow, IndexFileRow, JobRow

FILES_KEPT = 4  # rows a collection: of several machines that each write files of their own, the newest ones


@dataclass(frozen=True, slots=True)
class Standing:
    """How a collection stands to its newest file."""

    collection_id: int
    name: str
    images: int
    changes: int  # images that came, changed or went since the newest file was written; all of them without one
    has_file: bool


def newest(session: Session, collection_id: int, embedding_id: int) -> Sequence[IndexFileRow]:
    """The files of this embedding that the record vouches for, newest first."""
    statement = (
        select(IndexFileRow)
        .where(IndexFileRow.collection_id == collection_id, IndexFileRow.embedding_id == embedding_id)
        .order_by(IndexFileRow.id.desc())
    )
    return session.scalars(statement).all()


def add(session: Session, row: IndexFileRow) -> list[str]:
    """Vouch for a file; the digests of all files of the collection that still count."""
    session.add(row)
    session.flush()
    kept = session.execute(
        select(IndexFileRow.id, IndexFileRow.digest)
        .where(IndexFileRow.collection_id == row.collection_id)
        .order_by(IndexFileRow.id.desc())
        .limit(FILES_KEPT)
    ).all()
    session.execute(
        delete(IndexFileRow).where(
            IndexFileRow.collection_id == row.collection_id, IndexFileRow.id.not_in([number for number, _ in kept])
        )
    )
    return [digest for _, digest in kept]


def drop(session: Session, collection_id: int) -> None:
    """Vouch for no file of a collection any more."""
    session.execute(delete(IndexFileRow).where(IndexFileRow.collection_id == collection_id))


def renew(session: Session, collection_id: int) -> None:
    """Have every process renew its state of the collection."""
    session.execute(
        update(CollectionRow)
        .where(CollectionRow.id == collection_id)
        .values(index_version=CollectionRow.index_version + 1)
    )


def standing(session: Session, collection_id: int, known: Sequence[str]) -> Standing | None:
    """How a collection stands to the newest of the files known here; None when it is gone."""
    row = session.get(CollectionRow, collection_id)
    if row is None:
        return None
    images = select(func.count()).select_from(ImageRow).where(ImageRow.collection_id == collection_id)
    sequence = session.scalar(
        select(func.max(IndexFileRow.sequence)).where(
            IndexFileRow.collection_id == collection_id,
            IndexFileRow.embedding_id == row.embedding_id,
            IndexFileRow.digest.in_(known),
        )
    )
    total = session.scalar(images) or 0
    changes = total
    if sequence is not None:
        gone = (
            select(func.count())
            .select_from(DeletionRow)
            .where(DeletionRow.collection_id == collection_id, DeletionRow.sequence > sequence)
        )
        changes = (session.scalar(images.where(ImageRow.sequence > sequence)) or 0) + (session.scalar(gone) or 0)
    return Standing(collection_id, row.name, total, changes, sequence is not None)


def sequences(session: Session) -> dict[int, int]:
    """The sequence of every collection that is complete; one that is being restored is looked at when it is there."""
    statement = select(CollectionRow.id, CollectionRow.sequence).where(~CollectionRow.name.startswith(HIDDEN))
    rows = session.execute(statement)
    return {row.id: row.sequence for row in rows}


def is_waiting(session: Session, collection_id: int, kinds: Sequence[str]) -> bool:
    """Whether a job of these kinds is queued or running for a collection."""
    statement = select(JobRow.id).where(
        JobRow.collection_id == collection_id, JobRow.kind.in_(kinds), JobRow.state.in_(("queued", "running"))
    )
    return session.scalars(statement.limit(1)).first() is not None


def vouch(
    session: Session, *, collection_id: int, embedding_id: int, sequence: int, digest: str, size: int, now: datetime
) -> list[str]:
    """Vouch for a file that is on disk, and have every process go over to it; the digests that still count."""
    kept = add(
        session,
        IndexFileRow(
            collection_id=collection_id,
            embedding_id=embedding_id,
            sequence=sequence,
            digest=digest,
            size_bytes=size,
            created_at=now,
        ),
    )
    renew(session, collection_id)
    return kept
