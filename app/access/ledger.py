"""One thread that writes down what keys were used for, so that no request waits for it."""

import logging
import queue
import threading
import time
from collections import Counter
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from app.access.audit import Audit
from app.access.caller import Caller
from app.access.meter import Meter
from app.clock import Clock, shown
from app.db.engine import Database
from app.db.statements import insert_unless_there
from app.db.tables import ApiKeyRow, KeyUsageRow

log = logging.getLogger("oddity")
COUNT_EVERY_S = 1.0  # how often quotas are added up over all processes
SUM_UP_EVERY_S = 60.0  # how often it is noted which keys were used at all
WAITING_MAX = 10_000
ADDRESSES_MAX = 10


class Ledger:
    """Writes and refusals go to the audit log one by one, everything else as a sum for each key and minute."""

    def __init__(self, database: Database, audit: Audit, meter: Meter, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._meter = meter
        self._clock = clock
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING_MAX)
        self._lost = 0
        self._used: dict[Caller, _Use] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._waiting.put(None)
        self._thread.join()

    def note(self, entry: dict[str, Any]) -> None:
        """Have one entry written, soon; never waits."""
        try:
            self._waiting.put_nowait({"time": shown(self._clock()), **entry})
        except queue.Full:
            self._lost += 1

    def use(self, caller: Caller, address: str | None, status: int) -> None:
        """Count an answer."""
        with self._lock:
            use = self._used.get(caller)
            if use is None:
                use = self._used[caller] = _Use()
            use.answers[status] += 1
            if address is not None and len(use.addresses) < ADDRESSES_MAX:
                use.addresses.add(address)

    def read(self, before: tuple[int, int] | None, limit: int) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
        """A page of the audit log; see `Audit.page`."""
        return self._audit.page(before, limit)

    def _run(self) -> None:
        counted_at = summed_at = time.monotonic()
        is_over = False
        while not is_over:
            entries: list[dict[str, Any]] = []
            try:
                entry = self._waiting.get(timeout=COUNT_EVERY_S)
                while entry is not None:
                    entries.append(entry)
                    entry = self._waiting.get_nowait()
                is_over = True
            except queue.Empty:
                pass
            now = time.monotonic()
            if is_over or now - summed_at >= SUM_UP_EVERY_S:
                entries += self._summed_up()
                summed_at = now
            self._write(entries)
            if is_over or now - counted_at >= COUNT_EVERY_S:
                self._count()
                counted_at = now

    def _write(self, entries: list[dict[str, Any]]) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            entries.append({"time": shown(self._clock()), "event": "lost", "entries": lost})
        if not entries:
            return
        try:
            self._audit.append(entries)
        except OSError as error:  # requests go on: a full disk must not make the service deaf
            self._lost += len(entries)
            log.error("audit_unwritable", extra={"facts": {"error": type(error).__name__, "errno": error.errno}})

    def _summed_up(self) -> list[dict[str, Any]]:
        with self._lock:
            used, self._used = self._used, {}
        now = self._clock()
        keys = [one.key_id for one in used if one.key_id is not None]
        if keys:
            try:
                with self._database.write() as session:
                    session.execute(update(ApiKeyRow).where(ApiKeyRow.id.in_(keys)).values(last_used_at=now))
            except SQLAlchemyError as error:  # the audit log has it all the same
                log.warning("last_use_unwritten", extra={"facts": {"error": type(error).__name__}})
        return [
            {
                "time": shown(now),
                "event": "use",
                "key": caller.key_id,
                "name": caller.name,
                "answers": {str(status): count for status, count in sorted(use.answers.items())},
                "addresses": sorted(use.addresses),
            }
            for caller, use in used.items()
        ]

    def _count(self) -> None:
        day, fresh = self._meter.take()
        if not fresh:
            return
        try:
            with self._database.write() as session:
                totals = {}
                for key_id, count in sorted(fresh.items()):
                    where = (KeyUsageRow.key_id == key_id, KeyUsageRow.day == day)
                    values = {"key_id": key_id, "day": day, "requests": 0}
                    session.execute(insert_unless_there(session, KeyUsageRow, values))
                    session.execute(update(KeyUsageRow).where(*where).values(requests=KeyUsageRow.requests + count))
                    totals[key_id] = session.scalars(select(KeyUsageRow.requests).where(*where)).one()
        except SQLAlchemyError as error:
            log.warning("use_uncounted", extra={"facts": {"error": type(error).__name__}})
            return
        self._meter.learn(day, totals)


class _Use:
    """What one caller did in the last minute."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.addresses: set[str] = set()
