"""Workers side by side in one process, so that short jobs never wait for long ones, and the collector beside them."""

import time
from collections.abc import Callable, Mapping

from app.collecting.collector import Collector
from app.core import Core
from app.indexing.watch import IndexWatch
from app.jobs.runner import Handler, Runner

# Minutes at most, and somebody waits for the result. Every other kind (import, restore, fit, train) may take hours.
QUICK = frozenset({"calibrate", "clean", "compact", "compress", "snapshot"})


class Lanes:
    """So many workers that take any job, oldest first, and one more that takes quick jobs only."""

    def __init__(
        self,
        core: Core,
        handlers: Mapping[str, Handler],
        workers: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        quick = {kind: handler for kind, handler in handlers.items() if kind in QUICK}
        self._runners = [Runner(core, given) for given in (*[handlers] * workers, quick) if given]
        self._collector = Collector(core) if handlers else None
        self._index_watch = IndexWatch(core, self.wake) if handlers else None

    @property
    def has_runners(self) -> bool:
        """Whether jobs are run here at all."""
        return bool(self._runners)

    def fault(self) -> str | None:
        """What is wrong, None where every worker looks for jobs."""
        return None if all(runner.is_alive for runner in self._runners) else "a thread that runs jobs has ended"

    def ask_to_stop(self) -> None:
        """Have each worker stop after its current step, without waiting for that."""
        for runner in self._runners:
            runner.ask_to_stop()

    def start(self) -> None:
        """Begin to work."""
        for runner in self._runners:
            runner.start()
        if self._collector is not None:
            self._collector.start()
        if self._index_watch is not None:
            self._index_watch.start()

    def wake(self) -> None:
        """Look for work now."""
        for runner in self._runners:
            runner.wake()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Stop after the current step of each, unfinished jobs go back into the queue; whether all came to an end."""
        self.ask_to_stop()
        until = self._monotonic() + timeout_s
        if self._collector is not None:
            self._collector.stop()
        if self._index_watch is not None:
            self._index_watch.stop()
        ended = [runner.stop(max(0.0, until - self._monotonic())) for runner in self._runners]
        return all(ended)
