"""Runs queued jobs, one at a time, in a thread; knows nothing of the web application. See also `app.jobs.lanes`.

A worker takes a job by writing its name and a lease into the row, and renews the lease while it works. When it is
killed, the lease runs out and any worker queues the job again; handlers are written so that a second run is safe.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.core import Core
from app.db.tables import JobRow
from app.errors import describe, item_problem
from app.jobs import repository
from app.jobs.context import Cancelled, JobContext, LeaseLost, Stopping
from app.jobs.log import with_line
from app.observe import observed, stage

log = logging.getLogger("oddity.jobs")
Handler = Callable[[Core, JobContext], dict[str, Any]]
ATTEMPTS_MAX = 5  # a job that takes its worker down each time must not do so for ever


class Runner:
    """A worker: `start`, then it takes jobs of the kinds it has handlers for until `stop`.

    `wake` makes it look for work at once; without that it looks every `poll_s`. Several runners, in one process or in
    many, may share a record.
    """

    def __init__(
        self,
        core: Core,
        handlers: Mapping[str, Handler],
        *,
        lease_s: float = 30.0,
        poll_s: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._handlers = dict(handlers)
        self._lease = timedelta(seconds=lease_s)
        self._poll_s = poll_s
        self._monotonic = monotonic
        self._owner = secrets.token_hex(16)
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._current: JobContext | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to work, in two threads: one for the jobs, one that renews the lease."""
        if self._threads:
            return
        self._threads = [
            threading.Thread(target=self._work, name="jobs", daemon=True),
            threading.Thread(target=self._keep_leases, name="job-leases", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its threads run."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    def ask_to_stop(self) -> None:
        """Take no more jobs and stop after the current step, without waiting for that."""
        self._stopping.set()
        self._woken.set()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Stop after the current step, an unfinished job goes back into the queue; whether it came to that in time."""
        self.ask_to_stop()
        until = self._monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - self._monotonic()))
        has_ended = not any(thread.is_alive() for thread in self._threads)
        self._threads = []
        return has_ended

    def run_one(self) -> bool:
        """Run the oldest queued job, after queueing again what other workers left; False when there is none."""
        context = self._take()
        if context is None:
            return False
        self._current = context
        try:
            self._run(context)
        finally:
            self._current = None
        return True

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                worked = self.run_one()
            except SQLAlchemyError:
                log.warning("the record cannot be reached; looking for jobs again in %s s", self._poll_s, exc_info=True)
                worked = False
            if not worked:
                self._woken.wait(self._poll_s)

    def _keep_leases(self) -> None:
        while not self._stopping.wait(self._lease.total_seconds() / 3):
            context = self._current
            if context is not None and not context.is_concluded:
                try:
                    context.beat()
                except SQLAlchemyError:
                    log.warning("the lease of job %s could not be renewed", context.id, exc_info=True)

    def _take(self) -> JobContext | None:
        core = self._core
        now = core.clock()
        with core.database.read() as session:
            if not repository.is_work_waiting(session, self._handlers, now):
                return None
        with core.database.write() as session:
            for abandoned in repository.expired(session, now):
                _put_back(abandoned, now)
            session.flush()
            row = repository.oldest_queued(session, self._handlers)
            if row is None:
                return None
            now = core.clock()  # anew: the wait for other writers is not to come off the lease
            row.state, row.lease_owner, row.lease_until = "running", self._owner, now + self._lease
            row.attempts += 1
            row.started_at = now
            row.done, row.total, row.stage, row.stage_started_at = 0, None, "", None
            row.log = with_line(row.log, now, "begins" if row.attempts == 1 else f"begins, attempt {row.attempts}")
            collection = repository.collection_names(session, [row]).get(row.collection_id or 0)
            session.flush()
        return JobContext(
            core,
            row,
            collection,
            owner=self._owner,
            lease=self._lease,
            stopping=self._stopping,
            monotonic=self._monotonic,
        )

    def _run(self, context: JobContext) -> None:
        log.info("job %s (%s of %s) begins", context.id, context.kind, context.collection)
        try:
            with observed(self._core.observing, context.id), stage(context.kind):
                result = self._handlers[context.kind](self._core, context)
        except Cancelled:
            self._end(context, "cancelled")
        except Stopping:
            self._end(context, "queued", finished_at=None, started_at=None, attempts=context.attempts - 1)
        except LeaseLost:
            log.warning("job %s is no longer this worker's", context.id)
        except Exception as error:  # whatever a handler raises is the answer of its job, not the end of the worker
            if describe(error)[1] == "record_unavailable":
                raise  # the record is away, for which the job can do nothing: it is run again when its lease is over
            problem = item_problem(error)
            log.error(
                "job %s failed: %s", context.id, problem["detail"], exc_info=error if problem["status"] >= 500 else None
            )
            context.note(problem["detail"])
            self._end(context, "failed", problem=problem)
        else:
            if not context.is_concluded:
                self._end(context, "succeeded", result=result)

    def _end(self, context: JobContext, state: str, **values: Any) -> None:
        """Write how a job ended. If even that fails, the lease runs out and the job is run again."""
        columns = {**context.ending(state, self._core.clock()), **values}
        with self._core.database.write() as session:
            held = repository.change_held(session, context.id, self._owner, **columns)
        log.info("job %s %s", context.id, state if held is not None else "was taken from this worker")


def _put_back(row: JobRow, now: datetime) -> None:
    """What becomes of a job whose worker is gone."""
    row.lease_owner = row.lease_until = None
    row.log = with_line(row.log, now, "its worker has not been heard of")
    if row.cancel_requested:
        row.state, row.finished_at = "cancelled", now
    elif row.attempts >= ATTEMPTS_MAX:
        row.state, row.finished_at = "failed", now
        detail = f"The job was begun {row.attempts} times and its worker ended each time; it is not tried again."
        row.problem = {"code": "job_given_up", "status": 500, "detail": detail}
    else:
        row.state = "queued"
        log.warning("job %s is queued again: its worker has not been heard of", row.id)
