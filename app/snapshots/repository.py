"""Every SQL statement about snapshots, and about collections as a whole."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.collections.repository import HIDDEN
from app.db.tables import (
    CollectionRow,
    CompressionRow,
    EmbeddingRow,
    FeedbackRow,
    GroupMemberRow,
    GroupRow,
    ImageRow,
    JobRow,
    RuntimeRow,
    ScorerRow,
    SnapshotRow,
    VectorRow,
)
from app.jobs.repository import ENDED
from app.vector_checksums import damaged, is_intact

PAGE_ROWS = 1000


def collection(session: Session, collection_id: int) -> CollectionRow | None:
    """The collection with this key, if it is still there."""
    return session.get(CollectionRow, collection_id)


def images(session: Session, collection_id: int, embedding_id: int) -> Iterator[tuple[ImageRow, int, bytes]]:
    """Every image with the runtime and bytes of its vector, in order of arrival. Raises BytesDamaged."""
    last = 0
    width = session.get_one(EmbeddingRow, embedding_id).width
    while True:
        statement = (
            select(ImageRow, VectorRow.runtime_id, VectorRow.vector, VectorRow.checksum)
            .join(VectorRow, (VectorRow.image_pk == ImageRow.id) & (VectorRow.embedding_id == embedding_id))
            .where(ImageRow.collection_id == collection_id, ImageRow.id > last)
            .order_by(ImageRow.id)
            .limit(PAGE_ROWS)
        )
        page = session.execute(statement).all()
        session.expunge_all()
        for image, runtime_id, vector, checksum in page:
            if not is_intact(image.id, vector, checksum, width):
                raise damaged(image.image_id)
            yield image, runtime_id, vector
        if len(page) < PAGE_ROWS:
            return
        last = page[-1][0].id


def files(session: Session, collection_id: int) -> Iterator[tuple[str, int]]:
    """Hash and size of every image's bytes, each once, in order of the hashes."""
    statement = (
        select(ImageRow.sha256, func.min(ImageRow.size_bytes))
        .where(ImageRow.collection_id == collection_id)
        .group_by(ImageRow.sha256)
        .order_by(ImageRow.sha256)
    )
    for found in session.execute(statement).yield_per(PAGE_ROWS):
        yield found[0], found[1]


def groups(session: Session, collection_id: int) -> Iterator[tuple[GroupRow, list[int]]]:
    """Every registered set with the keys of its images, in order."""
    rows = session.scalars(select(GroupRow).where(GroupRow.collection_id == collection_id).order_by(GroupRow.id)).all()
    for row in rows:
        statement = select(GroupMemberRow.image_pk).where(GroupMemberRow.group_pk == row.id)
        yield row, list(session.scalars(statement.order_by(GroupMemberRow.position)))


def feedback(session: Session, collection_id: int) -> Sequence[FeedbackRow]:
    """Every judgement, in order."""
    statement = select(FeedbackRow).where(FeedbackRow.collection_id == collection_id)
    return session.scalars(statement.order_by(FeedbackRow.created_at, FeedbackRow.id)).all()


def compression(session: Session, collection_id: int) -> CompressionRow | None:
    """The compressed bank, if there is one."""
    return session.get(CompressionRow, collection_id)


def scorers(session: Session, collection_id: int) -> list[dict[str, Any]]:
    """What was asked for of each fitted scorer: its recipe, not what it learnt."""
    rows = session.scalars(select(ScorerRow).where(ScorerRow.collection_id == collection_id).order_by(ScorerRow.name))
    return [{"id": one.name, "method": one.method, "params": one.parameters, "seed": one.seed} for one in rows]


def runtime(session: Session, runtime_id: int) -> dict[str, Any]:
    """What computed a batch of vectors."""
    return session.get_one(RuntimeRow, runtime_id).description


def add_images(session: Session, rows: Sequence[dict[str, Any]]) -> Sequence[int]:
    """The keys of these images, inserted in order."""
    statement = insert(ImageRow).returning(ImageRow.id, sort_by_parameter_order=True)
    return session.scalars(statement, list(rows)).all()


def add_vectors(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert vectors."""
    session.execute(insert(VectorRow), list(rows))


def add_group(session: Session, row: GroupRow, members: Sequence[int]) -> None:
    """Insert a registered set with the keys of its images."""
    session.add(row)
    session.flush()
    placed = [{"group_pk": row.id, "position": place, "image_pk": pk} for place, pk in enumerate(members)]
    if placed:
        session.execute(insert(GroupMemberRow), placed)


def hidden(session: Session) -> dict[int, str]:
    """Keys and names of the collections that are not complete."""
    statement = select(CollectionRow).where(CollectionRow.name.startswith(HIDDEN))
    return {row.id: row.name for row in session.scalars(statement)}


def living_jobs(session: Session, job_ids: Collection[str]) -> set[str]:
    """Which of these jobs are still to be run, or running."""
    return {
        job_id
        for job_id in job_ids
        if session.scalar(select(JobRow.id).where(JobRow.id == job_id, JobRow.state.not_in(ENDED))) is not None
    }


def find(session: Session, snapshot_id: str) -> SnapshotRow | None:
    """The snapshot of this id, if there is one."""
    return session.get(SnapshotRow, snapshot_id)


def page(session: Session, name: str, before: str, limit: int) -> Sequence[SnapshotRow]:
    """Snapshots of collections of this name, newest first."""
    statement = select(SnapshotRow).where(SnapshotRow.collection == name)
    if before:
        statement = statement.where(SnapshotRow.id < before)
    return session.scalars(statement.order_by(SnapshotRow.id.desc()).limit(limit)).all()


def drop(session: Session, snapshot_id: str) -> None:
    """Forget a snapshot."""
    session.execute(delete(SnapshotRow).where(SnapshotRow.id == snapshot_id))
