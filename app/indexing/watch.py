"""A thread that looks which collections have outgrown their index file, and queues the job that writes a new one."""

import logging
from collections.abc import Callable

from app.core import Core
from app.indexing.service import submit_due
from app.periodic import Periodic

log = logging.getLogger("oddity.indexing")


class IndexWatch(Periodic):
    """Looks every so many seconds; collections that stand still cost one query together."""

    name = "index-watch"
    failing = "index files are not looked after"

    def __init__(self, core: Core, wake: Callable[[], None]) -> None:
        super().__init__(core.settings.index_every_s)
        self._core = core
        self._wake = wake
        self._seen: dict[int, int] = {}

    def turn(self) -> None:
        """Queue a job for each collection that has outgrown its file."""
        names = submit_due(self._core, self._seen)
        if names:
            log.info("index files will be written for: %s", ", ".join(names))
            self._wake()
