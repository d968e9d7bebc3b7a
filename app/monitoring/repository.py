"""Every SQL statement of monitoring."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import JobRow


def jobs(session: Session) -> list[tuple[str, str, int]]:
    """How many jobs there are of each kind and state."""
    statement = select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state)
    return [(kind, state, count) for kind, state, count in session.execute(statement)]


def oldest_queued_at(session: Session) -> datetime | None:
    """When the job was submitted that has waited longest."""
    return session.scalar(select(func.min(JobRow.created_at)).where(JobRow.state == "queued"))
