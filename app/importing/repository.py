"""Every SQL statement about imports."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.db.tables import ImportProblemRow, ImportRow, JobRow


def find(session: Session, job_id: str) -> ImportRow | None:
    """How far an import has come, if it has begun."""
    return session.get(ImportRow, job_id)


def store(session: Session, job_id: str, position: list[Any] | None, counts: dict[str, int]) -> None:
    """Note how far an import has come."""
    session.merge(ImportRow(job_id=job_id, position=position, counts=counts))


def add_problems(session: Session, job_id: str, problems: Iterable[dict[str, Any]]) -> None:
    """Note files that could not be taken: name, code, status and detail of each."""
    rows = [{"job_id": job_id, **one} for one in problems]
    if rows:
        session.execute(insert(ImportProblemRow), rows)


def problems(session: Session, job_id: str, after: int, limit: int) -> Sequence[ImportProblemRow]:
    """Files that could not be taken, in order, after this row."""
    statement = select(ImportProblemRow).where(ImportProblemRow.job_id == job_id, ImportProblemRow.id > after)
    return session.scalars(statement.order_by(ImportProblemRow.id).limit(limit)).all()


def job(session: Session, collection_id: int, job_id: str) -> JobRow | None:
    """The job of this id, if it imports into this collection."""
    row = session.get(JobRow, job_id)
    return row if row is not None and (row.collection_id, row.kind) == (collection_id, "import") else None
