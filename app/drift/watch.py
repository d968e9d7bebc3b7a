"""A thread that writes counted p-values to the record, drops old ones, and keeps what /metrics tells of drift."""

from datetime import datetime, timedelta

from app.core import Core
from app.drift import repository
from app.drift.service import watched
from app.periodic import Periodic

PRUNE_EVERY = timedelta(hours=1)
LOOK_EVERY = timedelta(minutes=1)


class DriftWatch(Periodic):
    """Writes every so many seconds; a record that is away is tried again, and nothing is lost meanwhile."""

    name = "drift"
    failing = "p-values are not written"
    ends_with_a_turn = True

    def __init__(self, core: Core) -> None:
        super().__init__(core.settings.drift_flush_s)
        self._core = core
        self._kept = timedelta(hours=core.settings.drift_kept_hours)
        self._watched_max = core.settings.metrics_collections
        self._pruned_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._answering: set[tuple[int, str]] = set()  # written lately, or looked at before
        self._found: dict[tuple[int, str], tuple[float, int]] = {}

    def found(self) -> dict[tuple[int, str], tuple[float, int]]:
        """For collections (by id) and scorers that answer: p-value of the last day's drift, and of how many images."""
        return dict(self._found)

    def turn(self) -> None:
        """Write what waits; once a minute look at whatever answers, once an hour drop what is old."""
        for key in self._core.p_values.flush(self._core.database):
            if len(self._answering) < self._watched_max:
                self._answering.add((key.collection_id, key.scorer))
        now = self._core.clock()
        if self._answering and (self._looked_at is None or now - self._looked_at >= LOOK_EVERY):
            self._look()
            self._looked_at = now
        if self._pruned_at is None or now - self._pruned_at >= PRUNE_EVERY:
            with self._core.database.read() as session:
                is_old = repository.has_old(session, now - self._kept)
            if is_old:
                with self._core.database.write() as session:
                    repository.prune(session, now - self._kept)
            self._pruned_at = now

    def _look(self) -> None:
        found = {place: told for place in self._answering if (told := watched(self._core, *place)) is not None}
        self._answering = set(found)  # who has answered too little, or nothing for a day, is noted at the next answer
        self._found = found
