"""Several server processes that share one address, so that Python keeps more than one core busy.

The parent binds the address and looks after the processes; it answers nothing itself. All of them accept connections
from the one socket: whoever is free takes the next, and none is refused while one of them is started again.
"""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE

from app.kept_process import KeptProcess
from app.memory import memory_for_collections, memory_for_scorers
from app.settings import Settings, environment_of

COMMAND = (sys.executable, "-m", "app.cli", "serve", "--socket")
LEAVE_S = 5.0  # more than the processes give themselves to end
LEAST_BYTES = 2**20  # of a budget
DECODERS_PER_THREAD = 2


class ServerProcesses:
    """Keeps so many server processes running from `run` to `end`."""

    def __init__(self, settings: Settings, listening: socket.socket, command: Sequence[str] = COMMAND) -> None:
        """`command` is followed by the number of the socket, which the processes take over."""
        self._settings = settings
        self._listening = listening
        self._command = (*command, str(listening.fileno()))
        self._endings: SimpleQueue[int] = SimpleQueue()  # may be put into by a signal, as an event may not be set

    def run(self) -> int:
        """Serve until `end` is called, or until a process cannot start; the status to exit with."""
        with TemporaryDirectory(prefix="oddity-metrics-") as folder:
            kept = [
                _ServerProcess(part, command, self._listening.fileno(), Path(folder), self._endings)
                for part, command in zip(parts_of(self._settings), self._commands(), strict=True)
            ]
            for one in kept:
                one.start()
            status = self._endings.get()
            self._listening.close()
            for one in kept:
                one.ask_to_stop()
            for one in kept:
                one.stop(self._settings.drain_s + self._settings.shutdown_s + LEAVE_S)
        return status

    def end(self, *_: object) -> None:
        """Have all processes answer what they have accepted, and end; a handler of signals."""
        self._endings.put(0)

    def _commands(self) -> list[tuple[str, ...]]:
        return [(*self._command, "--announce"), *[self._command] * (self._settings.processes - 1)]


class _ServerProcess(KeptProcess):
    what = "a server process"

    def __init__(
        self, settings: Settings, command: Sequence[str], descriptor: int, counts: Path, endings: "SimpleQueue[int]"
    ) -> None:
        super().__init__(settings, command, environment=environment_of(counts), descriptors=[descriptor])
        self._counts = counts
        self._endings = endings

    def ended(self, pid: int, code: int) -> None:
        """Take it out of the gauges; where it cannot even start, the others cannot either."""
        mark_process_dead(pid, self._counts)  # type: ignore[no-untyped-call]
        if code == STARTUP_FAILURE and self.restarts == 0:
            self._endings.put(code)


def parts_of(settings: Settings) -> list[Settings]:
    """The settings of each process: threads and memory are shared out, and the first one looks after the jobs.

    Twice its threads decode for it, as far as there are so many: a caller who sends many images in one request is with
    one process, while others have nothing to decode.
    """
    count = settings.processes
    threads = settings.threads or len(os.sched_getaffinity(0))
    own = max(1, threads // count)
    decoders = settings.decode_workers
    shared = {
        "processes": 1,
        "threads": own,
        "memory_budget_bytes": max(LEAST_BYTES, memory_for_collections(settings) // count),
        "scorer_budget_bytes": max(LEAST_BYTES, memory_for_scorers(settings) // count),
        "bodies_limit_bytes": max(LEAST_BYTES, settings.bodies_limit_bytes // count),
        "decode_workers": min(threads, DECODERS_PER_THREAD * own) if decoders is None else max(1, decoders // count),
    }
    first = settings.model_copy(update=shared)
    return [first, *[first.model_copy(update={"jobs": "off"})] * (count - 1)]
