"""A thread that collects all the time, a little at once."""

import logging

from app.collecting.service import STARTS, Collected, collect_files, prune
from app.core import Core
from app.periodic import Periodic

log = logging.getLogger("oddity.collecting")
COLLECTOR_LOCK = "collector"  # held by the one process that collects


class Collector(Periodic):
    """Looks through one 256th of the image store every so many seconds, and through old rows once a round."""

    name = "collector"
    failing = "nothing is collected"

    def __init__(self, core: Core) -> None:
        super().__init__(core.settings.collect_every_s)
        self._core = core
        self._next = 0

    def step(self, turn: int) -> Collected:
        """What one step did; nothing where another process collects at this moment."""
        with self._core.database.lock(COLLECTOR_LOCK, shared=False) as is_alone:
            if not is_alone:
                return Collected()
            start = STARTS[turn % len(STARTS)]
            collected = collect_files(self._core, start)
            return collected + prune(self._core) if turn % len(STARTS) == 0 else collected

    def turn(self) -> None:
        """The next step; one that failed is the next one again."""
        collected = self.step(self._next)
        if collected != Collected():
            log.info("collected: %s", collected)
        self._next += 1
