"""The server's side of a worker process: started with the server, woken through a pipe, gone when the server is.

Each byte in the pipe after the settings means that there may be work. The record stays the truth about every job: a
byte that is lost costs a second at most, for workers also look by themselves.
"""

import sys
import time
from collections.abc import Callable, Sequence

from app.kept_process import PAUSE_FIRST_S, KeptProcess
from app.settings import Settings, environment_of

COMMAND = (sys.executable, "-m", "app.cli", "worker", "--beside-server")


class WorkerProcess(KeptProcess):
    """Keeps one worker process running; a job that is under way when it dies is run again."""

    what = "the worker process"

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str] = COMMAND,
        pause_s: float = PAUSE_FIRST_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # What a worker counts is its own, not the servers'.
        super().__init__(settings, command, pause_s, monotonic, environment=environment_of(None))

    def wake(self) -> None:
        """Tell the worker that there may be work; never waits."""
        self.tell(b"\n")
