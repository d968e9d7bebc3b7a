"""Every SQL statement about duplicates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Subquery, delete, func, insert, select, tuple_, update
from sqlalchemy.orm import Session

from app.db.tables import DuplicateRow, ImageRow, JobRow

PAGE_ROWS = 1000


def same_bytes(session: Session, collection_id: int, role: str | None) -> Iterator[tuple[str, str, int]]:
    """Hash, id and 1 of every image that shares its bytes with another, set by set."""
    shared = _images(select(ImageRow.sha256), collection_id, role).group_by(ImageRow.sha256)
    statement = _images(select(ImageRow.sha256, ImageRow.image_id), collection_id, role)
    statement = statement.where(ImageRow.sha256.in_(shared.having(func.count() > 1)))
    for found in session.execute(statement.order_by(ImageRow.sha256, ImageRow.id)).yield_per(PAGE_ROWS):
        yield found[0], found[1], 1


def to_hash(session: Session, collection_id: int, role: str | None) -> list[str]:
    """Hashes of bytes, ascending, whose pixels are not hashed and may be those of others: the size is the same."""
    size = (ImageRow.width, ImageRow.height)
    shared = _images(select(*size), collection_id, role).group_by(*size)
    shared = shared.having(func.count(func.distinct(ImageRow.sha256)) > 1)
    statement = _images(select(ImageRow.sha256).distinct(), collection_id, role)
    statement = statement.where(ImageRow.pixel_sha256.is_(None), tuple_(*size).in_(shared))
    return list(session.scalars(statement.order_by(ImageRow.sha256)))


def note_pixels(session: Session, collection_id: int, hashes: Mapping[str, str]) -> None:
    """Note the hash of the pixels of all images with these bytes."""
    for sha256, pixel_sha256 in hashes.items():
        statement = update(ImageRow).where(ImageRow.collection_id == collection_id, ImageRow.sha256 == sha256)
        session.execute(statement.values(pixel_sha256=pixel_sha256), execution_options={"synchronize_session": False})


def same_pixels(session: Session, collection_id: int, role: str | None) -> Iterator[tuple[str, str, int]]:
    """Pixel hash and id of the first image of each of several byte strings with the same pixels, and how many have it.

    Set by set; images of the same bytes stand for one.
    """
    files = _files(collection_id, role)
    shared = select(files.c.pixels).where(files.c.pixels.is_not(None)).group_by(files.c.pixels)
    statement = select(files.c.pixels, ImageRow.image_id, files.c.copies).join(files, files.c.pk == ImageRow.id)
    statement = statement.where(files.c.pixels.in_(shared.having(func.count() > 1)))
    for found in session.execute(statement.order_by(files.c.pixels, ImageRow.id)).yield_per(PAGE_ROWS):
        yield found[0], found[1], found[2]


def distinct_pictures(session: Session, collection_id: int, role: str | None) -> dict[int, int]:
    """Key of the first image of each picture, ascending, and how many images show it.

    A picture is known by its pixels where they were hashed, else by its bytes.
    """
    files = _files(collection_id, role)
    statement = select(func.min(files.c.pk), func.sum(files.c.copies))
    found = session.execute(statement.group_by(func.coalesce(files.c.pixels, files.c.sha256))).all()
    return dict(sorted((one[0], int(one[1])) for one in found))


def clear(session: Session, job_id: str) -> None:
    """Forget what an interrupted run of a job found."""
    session.execute(delete(DuplicateRow).where(DuplicateRow.job_id == job_id))


def add(session: Session, job_id: str, rows: Sequence[dict[str, Any]]) -> None:
    """Note members of sets, in order."""
    if rows:
        session.execute(insert(DuplicateRow), [{"job_id": job_id, **row} for row in rows])


def page(session: Session, job_id: str, level: str | None, after: int, limit: int) -> Sequence[DuplicateRow]:
    """Members of sets, in order, after this row."""
    statement = select(DuplicateRow).where(DuplicateRow.job_id == job_id, DuplicateRow.id > after)
    if level is not None:
        statement = statement.where(DuplicateRow.level == level)
    return session.scalars(statement.order_by(DuplicateRow.id).limit(limit)).all()


def job(session: Session, collection_id: int, job_id: str) -> JobRow | None:
    """The job of this id, if it looked for duplicates in this collection."""
    row = session.get(JobRow, job_id)
    return row if row is not None and (row.collection_id, row.kind) == (collection_id, "duplicates") else None


def _files(collection_id: int, role: str | None) -> Subquery:
    """Each byte string once: its first image, how many have it, and the hash of its pixels if any of them has it.

    An image that came again after the pixels of its bytes were hashed has none itself.
    """
    columns = (
        ImageRow.sha256,
        func.min(ImageRow.id).label("pk"),
        func.count().label("copies"),
        func.max(ImageRow.pixel_sha256).label("pixels"),
    )
    files: Subquery = _images(select(*columns), collection_id, role).group_by(ImageRow.sha256).subquery()
    return files


def _images(statement: Any, collection_id: int, role: str | None) -> Any:
    statement = statement.where(ImageRow.collection_id == collection_id)
    return statement if role is None else statement.where(ImageRow.role == role)
