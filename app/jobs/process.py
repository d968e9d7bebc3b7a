"""The server's side of a worker process: started with the server, woken through a pipe, gone when the server is.

The pipe is the worker's standard input. Its first line is the settings; each byte after it means that there may be
work; its end means that the server is gone, however that happened. The record stays the truth about every job: a byte
that is lost costs a second at most, for workers also look by themselves.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from app.settings import Settings

log = logging.getLogger("oddity.jobs")
COMMAND = (sys.executable, "-m", "app.cli", "worker", "--beside-server")
PAUSE_FIRST_S = 1.0
PAUSE_LONGEST_S = 60.0
SOUND_S = 60.0  # a worker that lived this long did not die of its start
FAILING_S = 35.0  # so long one may be away, or have run only since less long ago, before that is a fault


class WorkerProcess:
    """Keeps one worker process running from `start` to `stop`; one that dies is started again, ever later."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str] = COMMAND,
        pause_s: float = PAUSE_FIRST_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # held to start, wake or close, never to wait
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._failing_since: float | None = None
        self._code: int | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Id of the process that runs now, if one does."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def fault(self) -> str | None:
        """What is wrong, None where a process runs, or has only just ended and is started again."""
        now = self._monotonic()
        with self._lock:
            since = self._failing_since
            is_well = self._process is not None and now - self._began > FAILING_S
            if since is None or is_well or now - since < FAILING_S:
                return None
            return f"its process does not stay alive; it last ended with code {self._code}"

    def ask_to_stop(self) -> None:
        """Have the worker end after its current step, without waiting for that."""
        self._stopping.set()
        with self._lock:
            self._close()

    def start(self) -> None:
        """Start the process, and a thread that watches over it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="worker-process", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Tell the worker that there may be work; never waits."""
        with self._lock:
            self._tell(b"\n")

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the worker after its current step, or by force when that takes longer; whether force was not needed."""
        self.ask_to_stop()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        is_forced = self._thread.is_alive()
        if is_forced:
            with self._lock:
                if self._process is not None:
                    log.warning(
                        "the worker did not end within %s s and is killed; its job will be run again", timeout_s
                    )
                    self._process.kill()
            self._thread.join()
        self._thread = None
        return not is_forced

    def _keep(self) -> None:
        pause = self._pause_s
        while True:
            began = self._monotonic()
            with self._lock:
                if self._stopping.is_set():
                    return
                process = self._process = self._started()
                self._began = began
            code = process.wait()
            with self._lock:
                self._close()
                self._process = None
                ended = self._monotonic()
                if self._failing_since is None or ended - began > FAILING_S:
                    self._failing_since = ended
                self._code = code
            if self._stopping.is_set():
                return
            if self._monotonic() - began > SOUND_S:
                pause = self._pause_s
            log.warning("the worker process ended with code %s; started again in %s s", code, pause)
            self._stopping.wait(pause)
            self.restarts += 1
            pause = min(2 * pause, PAUSE_LONGEST_S)

    def _started(self) -> "subprocess.Popen[bytes]":
        # In a process group of its own: Ctrl-C is for the server, which then ends the worker in good order.
        process = subprocess.Popen(  # noqa: S603 - our own command line
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0, bufsize=0
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process
        self._tell(self._settings.handed_over().encode() + b"\n")
        return process

    def _tell(self, data: bytes) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
            # The pipe is full of wakes, or the worker has just died: either way nothing is lost.
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._process.stdin.fileno(), data)

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
