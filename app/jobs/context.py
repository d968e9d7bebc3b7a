"""What a running job may know and do."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.core import Core
from app.db.tables import JobRow
from app.jobs import repository
from app.jobs.log import with_line

UPDATE_EVERY_S = 1.0


class Interrupted(Exception):
    """The handler is to stop here and leave nothing half done; the runner knows what the row must say."""


class Cancelled(Interrupted):
    """Somebody asked for the end of the job."""


class Stopping(Interrupted):
    """This worker is closing; the job goes back into the queue."""


class LeaseLost(Interrupted):
    """The job, or its collection, is gone, or another worker has taken it over."""


class JobContext:
    """One job in the hands of one worker.

    `collection` and `collection_id` say what it works on, `parameters` how. `progress` is to be called often: it
    writes at most one update a second (so never inside a transaction of the job's own), and it is where a job learns
    that it must stop. `conclude` commits the result together with the changes of the transaction it is called in, so
    that a job interrupted at any moment either did its work and says so, or did nothing and can be run again.
    """

    def __init__(
        self,
        core: Core,
        row: JobRow,
        collection: str | None,
        *,
        owner: str,
        lease: timedelta,
        stopping: threading.Event,
        monotonic: Callable[[], float],
    ) -> None:
        self.id = row.id
        self.kind = row.kind
        self.collection_id = row.collection_id
        self.collection = collection
        self.parameters: dict[str, Any] = row.parameters
        self.attempts = row.attempts
        self.is_concluded = False
        self._core = core
        self._owner = owner
        self._lease = lease
        self._stopping = stopping
        self._monotonic = monotonic
        self._written_at = -UPDATE_EVERY_S + monotonic()
        self._facts: dict[str, Any] = {
            "done": 0,
            "total": None,
            "stage": "",
            "stage_started_at": None,
            "log": row.log,
        }
        self._is_cancelled = False
        self._is_lost = False

    def progress(self, done: int, total: int | None = None, stage: str | None = None) -> None:
        """Say how far the job is. Raises Cancelled, Stopping or LeaseLost when it must not go on."""
        before = self._facts["stage"]
        now_at = before if stage is None else stage[:128]
        if now_at != before or self._facts["stage_started_at"] is None:
            self._facts["stage_started_at"] = self._core.clock()
        self._facts.update(done=done, total=total, stage=now_at)
        if now_at != before:
            self.note(now_at)
        if self._monotonic() - self._written_at >= UPDATE_EVERY_S:
            self.beat()
        self.check()

    def note(self, text: str) -> None:
        """Add a line to the job's log; it is written with the progress, and at the end."""
        self._facts["log"] = with_line(self._facts["log"], self._core.clock(), text)

    def check(self) -> None:
        """Raise Cancelled, Stopping or LeaseLost when the job must not go on; costs nothing."""
        if self._is_lost:
            raise LeaseLost
        if self._is_cancelled:
            raise Cancelled
        if self._stopping.is_set():
            raise Stopping

    def beat(self) -> None:
        """Renew the lease and write the progress; called by the runner too, for handlers that are silent for long."""
        self._written_at = self._monotonic()
        with self._core.database.write() as session:
            session.connection()  # the wait for other writers, which is not to come off the lease
            until = self._core.clock() + self._lease
            asked = repository.change_held(session, self.id, self._owner, lease_until=until, **self._facts)
        self._is_lost = self._is_lost or asked is None
        self._is_cancelled = self._is_cancelled or bool(asked)

    def conclude(self, session: Session, result: dict[str, Any]) -> None:
        """Mark the job succeeded in the transaction that makes its changes.

        Raises LeaseLost or Cancelled, which roll that transaction back. Only a job that has not failed to commit may
        be called concluded, so it is the last thing a transaction does.
        """
        now = self._core.clock()
        asked = repository.change_held(session, self.id, self._owner, **self.ending("succeeded", now), result=result)
        if asked is None:
            raise LeaseLost
        if asked:
            raise Cancelled
        self.is_concluded = True

    def ending(self, state: str, now: datetime) -> dict[str, Any]:
        """The columns of a job that has ended like this."""
        log = with_line(self._facts["log"], now, "queued again: its worker ends" if state == "queued" else state)
        return {**self._facts, "log": log, "state": state, "finished_at": now, "lease_owner": None, "lease_until": None}
