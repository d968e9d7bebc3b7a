"""P-values of served answers, counted in memory and written to the record every few seconds.

What a killed server had not written yet is lost, a few seconds' worth; no request waits for any of this.
"""

import threading
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from app.clock import Clock
from app.db.engine import Database
from app.drift import repository
from app.drift.repository import Key
from models.drift import Counted, counted

KEYS_MAX = 10_000  # collections, scorers and hours that may wait for the record
LOOSE_MAX = 1024  # p-values that wait to be counted: counting one takes as long as counting a thousand


class PValueCounts:
    """Counts that wait to be written; safe for threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[Key, Counted] = {}
        self._loose: dict[tuple[Key, int], list[float]] = {}  # not counted yet, by the number of calibration images
        self._loose_n = 0
        self._lock = threading.Lock()

    def note(self, collection_id: int, scorer: str, p_values: Sequence[float], n: int) -> None:
        """Count the p-values of an answer that rests on n calibration images."""
        if not p_values or not n:
            return
        key = Key(collection_id, scorer, hour_of(self._clock()))
        with self._lock:
            self._loose.setdefault((key, n), []).extend(p_values)
            self._loose_n += len(p_values)
            if self._loose_n >= LOOSE_MAX:
                self._count_loose()

    def flush(self, database: Database) -> set[Key]:
        """Write what waits; what. Raises what the database raises: then everything waits on."""
        with self._lock:
            self._count_loose()
            taken, self._waiting = self._waiting, {}
        if not taken:
            return set()
        try:
            with database.write() as session:
                repository.add(session, taken)
        except SQLAlchemyError:
            with self._lock:
                for key, one in taken.items():
                    self._add(key, one)
            raise
        return set(taken)

    # Below: with the lock held.

    def _count_loose(self) -> None:
        loose, self._loose, self._loose_n = self._loose, {}, 0
        for (key, n), p_values in loose.items():
            self._add(key, counted(p_values, n))

    def _add(self, key: Key, one: Counted) -> None:
        known = self._waiting.get(key)
        if known is not None:
            self._waiting[key] = known + one
        elif len(self._waiting) < KEYS_MAX:
            self._waiting[key] = one


def hour_of(moment: datetime) -> datetime:
    """The full hour before a moment."""
    return moment.replace(minute=0, second=0, microsecond=0)
