"""Every SQL statement about cleanings and compressed banks."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import CleaningRow, CompressionRow, ImageRow, JobRow

PARAMETERS_MAX = 500  # of one IN (…), well below what any database takes


def images(session: Session, collection_id: int, pks: Sequence[int]) -> list[ImageRow]:
    """The images with these keys that are still there, in the order of the keys."""
    found: dict[int, ImageRow] = {}
    for start in range(0, len(pks), PARAMETERS_MAX):
        some = pks[start : start + PARAMETERS_MAX]
        statement = select(ImageRow).where(ImageRow.collection_id == collection_id, ImageRow.id.in_(some))
        found.update((row.id, row) for row in session.scalars(statement))
    return [found[pk] for pk in pks if pk in found]


def cleanings(session: Session, collection_id: int) -> Sequence[JobRow]:
    """The jobs that cleaned a collection, in order, those undone among them."""
    statement = (
        select(JobRow)
        .where(JobRow.collection_id == collection_id, JobRow.kind == "clean", JobRow.state == "succeeded")
        .order_by(JobRow.finished_at, JobRow.id)
    )
    return session.scalars(statement).all()


def note_dropped(session: Session, job_id: str, dropped: Iterable[tuple[int, float]]) -> None:
    """Write down which images a cleaning took out of the bank, and their scores."""
    session.add_all(CleaningRow(job_id=job_id, image_pk=pk, score=score) for pk, score in dropped)


def dropped(session: Session, job_id: str, offset: int = 0, limit: int | None = None) -> list[tuple[ImageRow, float]]:
    """Images that a cleaning took out and that still exist, strangest first, with their scores."""
    statement = (
        select(ImageRow, CleaningRow.score)
        .join(CleaningRow, CleaningRow.image_pk == ImageRow.id)
        .where(CleaningRow.job_id == job_id)
        .order_by(CleaningRow.score.desc(), ImageRow.id)
        .offset(offset)
        .limit(limit)
    )
    return [(image, score) for image, score in session.execute(statement)]


def dropped_by(session: Session, job_ids: Sequence[str]) -> set[int]:
    """Keys of the images that these cleanings took out."""
    return set(session.scalars(select(CleaningRow.image_pk).where(CleaningRow.job_id.in_(job_ids))))


def compression(session: Session, collection_id: int) -> CompressionRow | None:
    """The compressed bank of a collection, if there is one."""
    return session.get(CompressionRow, collection_id)


def set_compression(session: Session, row: CompressionRow) -> None:
    """Store a compressed bank in place of any earlier one."""
    session.merge(row)


def drop_compression(session: Session, collection_id: int) -> bool:
    """Forget the compressed bank; says whether there was one."""
    statement = (
        delete(CompressionRow)
        .where(CompressionRow.collection_id == collection_id)
        .returning(CompressionRow.collection_id)
    )
    return session.execute(statement).scalar_one_or_none() is not None
