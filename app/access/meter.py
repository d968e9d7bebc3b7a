"""What each key may ask of the service: requests a second, in this process; requests a day, in all of them."""

import math
import threading
import time
from datetime import date, datetime, timedelta

from app.access.keyring import Key
from app.clock import Clock
from app.errors import TooMany

BURST_S = 2.0  # a key that was quiet may catch up on this much of its rate at once


class Meter:
    """Admits requests and counts them.

    A rate is a bucket that fills while nobody asks. Counts of a day are gathered here and added up in the record by
    whoever calls `take` and `learn`; between two such calls a quota may be exceeded by what this process admits.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when that was so
        self._day = date.min
        self._fresh: dict[str, int] = {}  # counted here, not yet in the record
        self._known: dict[str, int] = {}  # in the record
        self._lock = threading.Lock()

    def admit(self, key: Key) -> None:
        """Count one request of this key. Raises TooMany when it has used up its rate or its day."""
        key_id = key.caller.key_id
        assert key_id is not None
        if key.requests_per_s is not None:
            self._draw(key_id, key.requests_per_s)
        if key.requests_per_day is not None:
            self._count(key_id, key.requests_per_day)

    def take(self) -> tuple[date, dict[str, int]]:
        """The day, and what was counted on it since the last call; whoever takes it writes it down."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
            for key_id, count in fresh.items():
                self._known[key_id] = self._known.get(key_id, 0) + count
            return self._day, fresh

    def learn(self, day: date, totals: dict[str, int]) -> None:
        """Take over what the record has counted on a day, in all processes."""
        with self._lock:
            if day == self._day:
                self._known.update(totals)

    def _draw(self, key_id: str, rate: float) -> None:
        full = max(1.0, rate * BURST_S)
        now = time.monotonic()
        tokens, since = self._buckets.get(key_id, (full, now))
        tokens = min(full, tokens + (now - since) * rate)
        if tokens < 1:
            self._buckets[key_id] = (tokens, now)
            raise TooMany(
                f"This key may make {rate:g} requests a second; wait a moment.",
                retry_after_s=math.ceil((1 - tokens) / rate),
            )
        self._buckets[key_id] = (tokens - 1, now)

    def _count(self, key_id: str, quota: int) -> None:
        now = self._clock()
        with self._lock:
            if now.date() != self._day:  # a request at midnight may be counted on either day
                self._day, self._fresh, self._known = now.date(), {}, {}
            if self._known.get(key_id, 0) + self._fresh.get(key_id, 0) >= quota:
                raise TooMany(
                    f"This key may make {quota} requests a day, and has made them; the next day begins at 00:00 UTC.",
                    "quota_spent",
                    retry_after_s=math.ceil((_midnight_after(now) - now).total_seconds()),
                )
            self._fresh[key_id] = self._fresh.get(key_id, 0) + 1


def _midnight_after(now: datetime) -> datetime:
    return datetime.combine(now.date() + timedelta(days=1), datetime.min.time())
