"""A thread that looks which collections have outgrown their index file, and queues the job that writes a new one."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from app.core import Core
from app.indexing.service import submit_due

log = logging.getLogger("oddity.indexing")


class IndexWatch:
    """Looks every so many seconds; collections that stand still cost one query together."""

    def __init__(self, core: Core, wake: Callable[[], None]) -> None:
        self._core = core
        self._wake = wake
        self._every_s = core.settings.index_every_s
        self._seen: dict[int, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless the settings say never."""
        if self._thread is None and self._every_s:
            self._thread = threading.Thread(target=self._work, name="index-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop after the current look, which is short."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def step(self) -> list[str]:
        """Look once: the names of collections for which a job was queued."""
        names = submit_due(self._core, self._seen)
        if names:
            log.info("index files will be written for: %s", ", ".join(names))
            self._wake()
        return names

    def _work(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self.step()
            except DBAPIError:
                log.warning("the record cannot be reached; index files are looked after again in %s s", self._every_s)
