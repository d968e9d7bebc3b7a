"""A process of ours that is kept running beside this one, and is gone when this one is.

It is told through a pipe, its standard input: first a line with the settings, then whatever bytes mean to it. The end
of the pipe means that whoever kept it is gone, however that happened.
"""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import FileIO

from app.settings import Settings

log = logging.getLogger("oddity.processes")
PAUSE_FIRST_S = 1.0
PAUSE_LONGEST_S = 60.0
SOUND_S = 60.0  # a worker that lived this long did not die of its start
FAILING_S = 35.0  # so long one may be away, or have run only since less long ago, before that is a fault


class KeptProcess:
    """Keeps one process running from `start` to `stop`; one that dies is started again, ever later."""

    what = "a process"  # in the log

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        pause_s: float = PAUSE_FIRST_S,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """It gets these descriptors, and this environment; None: that of this process."""
        self._settings = settings
        self._command = tuple(command)
        self._environment = environment
        self._descriptors = tuple(descriptors)
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
        """Have the process end in good order, without waiting for that."""
        self._stopping.set()
        with self._lock:
            self._close()

    def start(self) -> None:
        """Start the process, and a thread that watches over it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="kept-process", daemon=True)
            self._thread.start()

    def tell(self, data: bytes) -> None:
        """Send bytes to the process; never waits, and they are lost where it has just died."""
        with self._lock:
            self._tell(data)

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the process in good order, or by force when that takes longer; whether force was not needed."""
        self.ask_to_stop()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        is_forced = self._thread.is_alive()
        if is_forced:
            with self._lock:
                if self._process is not None:
                    log.warning("%s did not end within %s s and is killed", self.what, timeout_s)
                    self._process.kill()
            self._thread.join()
        self._thread = None
        return not is_forced

    def ended(self, pid: int, code: int) -> None:
        """Called when the process has ended without being asked to, before it is started again."""

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
            self.ended(process.pid, code)
            if self._stopping.is_set():
                return
            log.warning("%s ended with code %s; started again in %s s", self.what, code, pause)
            self._stopping.wait(pause)
            self.restarts += 1
            pause = min(2 * pause, PAUSE_LONGEST_S)

    def _started(self) -> "subprocess.Popen[bytes]":
        # In a process group of its own: Ctrl-C is for this process, which then ends the other in good order.
        process = subprocess.Popen(  # noqa: S603 - our own command line
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
            bufsize=0,
            env=self._environment,
            pass_fds=self._descriptors,
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process
        self._tell(self._settings.handed_over().encode() + b"\n")
        return process

    def _tell(self, data: bytes) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BlockingIOError, BrokenPipeError):  # it reads nothing, or has just died
                os.write(self._process.stdin.fileno(), data)

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


# The other end: what the process that is kept does with its standard input.


def handed_settings(orders: FileIO) -> Settings | None:
    """The settings that a process is started with; None when whoever started it is gone already."""
    line = orders.readline()
    return Settings.model_validate_json(line) if line else None


def obey(orders: FileIO, told: Callable[[], None], gone: Callable[[], None]) -> None:
    """From a thread, call `told` whenever bytes have come, and `gone` at the end of the pipe."""

    def listen() -> None:
        while os.read(orders.fileno(), 4096):
            told()
        gone()

    threading.Thread(target=listen, name="orders", daemon=True).start()
