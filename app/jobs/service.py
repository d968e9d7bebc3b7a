"""Submitting, showing and cancelling jobs. The row in the record is the truth about a job; nothing else is."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app.access.caller import ANYBODY, Caller
from app.clock import shown
from app.collections.repository import require
from app.core import Core
from app.db.tables import JobRow
from app.errors import Conflict, Forbidden, NotFound
from app.idempotency import Answer, Request
from app.jobs import repository
from app.jobs.log import with_line

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def new_id(now: datetime) -> str:
    """32 hexadecimal digits that sort by time: 14 of microseconds, 18 of chance."""
    microseconds = round((now - _EPOCH).total_seconds() * 1e6)
    return f"{microseconds:014x}{secrets.token_hex(9)}"


def submit(
    core: Core,
    kind: str,
    collection: str | None,
    parameters: dict[str, Any],
    request: Request | None = None,
    also: Callable[[Session, str], None] | None = None,
) -> tuple[dict[str, Any], bool]:
    """The queued job, and whether the same Idempotency-Key had submitted it before (then as it stands now).

    `also` gets the job's id, to write what belongs to it in the same transaction.

    Raises NotFound when there is no such collection.
    """
    with core.idempotency.once(request) as answered:
        if answered is not None:
            return get_job(core, answered.body["id"]), True
        with core.database.write() as session:
            now = core.clock()
            # Locked before the job refers to it: two that lock it afterwards would wait for each other.
            is_locked = also is not None
            found = None if collection is None else require(session, collection, locked=is_locked, held=True)
            collection_id = None if found is None else found.id
            row = JobRow(
                id=new_id(now),
                kind=kind,
                collection_id=collection_id,
                parameters=parameters,
                state="queued",
                created_at=now,
            )
            session.add(row)
            session.flush()
            if also is not None:
                also(session, row.id)
            answer = show(row, collection, now)
            core.idempotency.remember(session, request, Answer(202, answer))
    return answer, False


def get_job(core: Core, job_id: str, caller: Caller = ANYBODY) -> dict[str, Any]:
    """The job as it stands. Raises NotFound, also where the caller does not see its collection."""
    with core.database.read() as session:
        row, name = _require(session, job_id, caller)
        return show(row, name, core.clock())


def list_jobs(
    core: Core,
    caller: Caller,
    collection: str | None,
    state: str | None,
    kind: str | None,
    before: str,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """Jobs that a caller sees, newest first, and the id to go on after when there are more."""
    if collection is not None and not caller.sees(collection):
        raise Forbidden(
            f"Key `{caller.name}` is not for collection `{collection}`, whether there is one or not.",
            "collection_refused",
        )
    with core.database.read() as session:
        collection_id = None if collection is None else require(session, collection).id
        rows = repository.page(session, caller, before, limit + 1, collection_id=collection_id, state=state, kind=kind)
        names = repository.collection_names(session, rows)
        now = core.clock()
        jobs = [show(row, names.get(row.collection_id or 0), now) for row in rows[:limit]]
    return jobs, (rows[limit - 1].id if len(rows) > limit else None)


def cancel(core: Core, job_id: str, caller: Caller = ANYBODY) -> dict[str, Any]:
    """The job after its end was asked for: a queued one ends at once, a running one at its next step.

    Asking twice is one asking. Raises NotFound; Conflict when it has already ended in another way.
    """
    with core.database.write() as session:
        row, name = _require(session, job_id, caller, locked=True)
        if row.state in ("succeeded", "failed"):
            raise Conflict(f"Job `{job_id}` has already {row.state}; there is nothing left to cancel.", "job_ended")
        now = core.clock()
        row.cancel_requested = True
        if row.state == "queued":
            row.state, row.finished_at = "cancelled", now
            row.log = with_line(row.log, now, "cancelled")
        return show(row, name, now)


def has_ended(job: dict[str, Any]) -> bool:
    """Whether a job, as `show` gives it, will not change any more."""
    return job["state"] in repository.ENDED


def show(row: JobRow, collection: str | None, now: datetime) -> dict[str, Any]:
    """A job as answers show it. `rate` is steps a second of this stage, `remaining_s` what that rate leaves to wait."""
    return {
        "id": row.id,
        "kind": row.kind,
        "collection": collection,
        "state": row.state,
        "parameters": row.parameters,
        "progress": _progress(row, now),
        "log": row.log or [],
        "attempts": row.attempts or 0,
        "cancel_requested": bool(row.cancel_requested),
        "result": row.result,
        "problem": row.problem,
        "created_at": shown(row.created_at),
        "started_at": None if row.started_at is None else shown(row.started_at),
        "finished_at": None if row.finished_at is None else shown(row.finished_at),
    }


def _progress(row: JobRow, now: datetime) -> dict[str, Any]:
    rate = remaining = None
    done, total = row.done or 0, row.total
    if row.stage_started_at is not None and done:
        seconds = ((row.finished_at or now) - row.stage_started_at).total_seconds()
        rate = done / seconds if seconds > 0 else None
    if rate is not None and total is not None and row.state == "running":
        remaining = max(total - done, 0) / rate
    return {"stage": row.stage or "", "done": done, "total": total, "rate": rate, "remaining_s": remaining}


def _require(session: Session, job_id: str, caller: Caller, *, locked: bool = False) -> tuple[JobRow, str | None]:
    """The job, and the name of its collection."""
    row = repository.find(session, job_id, locked=locked)
    name = None if row is None else repository.collection_names(session, [row]).get(row.collection_id or 0)
    if row is None or not caller.sees(name or row.parameters.get("collection")):  # a restore makes its collection
        raise NotFound(f"There is no job `{job_id}`.", "job_unknown")
    return row, name
