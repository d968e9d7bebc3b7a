"""A thread that collects all the time, a little at once."""

import logging
import threading

from sqlalchemy.exc import DBAPIError

from app.collecting.service import STARTS, Collected, collect_files, prune
from app.core import Core
from app.errors import Busy

log = logging.getLogger("oddity.collecting")
COLLECTOR_LOCK = "collector"  # held by the one process that collects


class Collector:
    """Looks through one 256th of the image store every so many seconds, and through old rows once a round."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._every_s = core.settings.collect_every_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless the settings say never."""
        if self._thread is None and self._every_s:
            self._thread = threading.Thread(target=self._work, name="collector", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop after the current step, which is short."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def step(self, turn: int) -> Collected:
        """What one step did; nothing where another process collects at this moment."""
        with self._core.database.lock(COLLECTOR_LOCK, shared=False) as is_alone:
            if not is_alone:
                return Collected()
            start = STARTS[turn % len(STARTS)]
            collected = collect_files(self._core, start)
            return collected + prune(self._core) if turn % len(STARTS) == 0 else collected

    def _work(self) -> None:
        turn = 0
        while not self._stopping.wait(self._every_s):
            try:
                collected = self.step(turn)
            except (DBAPIError, OSError, Busy) as error:
                log.warning("nothing is collected at the moment: %s", type(error).__name__)
                continue  # the same place again
            if collected != Collected():
                log.info("collected: %s", collected)
            turn += 1
