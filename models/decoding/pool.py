"""The server's side of the decoding workers: one image to one process at a time, a new process for each lost one."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from models.decoding.exchange import WorkerGone, exchange, exchange_async
from models.decoding.places import Places
from models.decoding.tasks import Answer
from models.errors import DeadlinePassed, DecoderUnavailable, ImageCrashed, ImageTooSlow
from models.niceness import stand_back

log = logging.getLogger("oddity.decoding")
COMMAND = (sys.executable, "-m", "models.decoding.worker")
START_S = 60.0  # what a worker may take until it answers
END_S = 5.0
TRIES = 2


class DecodingPool:
    """Runs decoding tasks in processes that are started when they are needed and kept; safe for threads.

    An image whose process dies is tried once more, in a process that has seen no other: it may have been another's
    fault, such as the kernel's that was short of memory. An image that takes too long is not.
    """

    def __init__(
        self,
        workers: int,
        memory_bytes: int,
        limit_s: float,
        command: Sequence[str] = COMMAND,
        *,
        niceness: int = 0,
    ) -> None:
        """At most so many processes at once; `memory_bytes` is what one may allocate beyond what it starts with.

        `niceness` is how far they stand back for this process (Linux; elsewhere they do not).
        """
        self._memory_bytes = memory_bytes
        self._limit_s = limit_s
        self._command = tuple(command)
        self._places = Places(workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []  # the last one used is used next, so that its memory is warm
        self._all: set[_Worker] = set()
        # The kernel kills a worker when the thread that started it ends, so one that lasts starts them all. They are as
        # nice as it is.
        self._starter = ThreadPoolExecutor(
            1, thread_name_prefix="decoders", initializer=stand_back, initargs=(niceness,)
        )
        self._exchanges: set[asyncio.Task[Answer]] = set()  # held here: a loop forgets tasks that nobody holds
        self.lost = 0  # processes that crashed or were killed for taking too long

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that there are now."""
        with self._lock:
            return [one.pid for one in self._all]

    def run(self, question: bytes, data: bytes, *, body_max: int, wait_s: float) -> Answer:
        """What a worker answers to a question, facts as JSON; `body_max` bytes at most. Waits `wait_s` at most for one.

        Raises:
            ImageCrashed: the process died of the image, twice.
            ImageTooSlow: the image took longer than the limit.
            DeadlinePassed: no process was free in time.
            DecoderUnavailable: no process can be started.
        """
        if not self._places.acquire(wait_s):
            raise _nobody_free()
        try:
            for turn in range(TRIES):
                worker = self._idle_worker() if turn == 0 else None
                if worker is None:
                    worker = self._new_worker()
                is_kept = False
                try:
                    answer = worker.ask((question, data), self._limit_s, body_max)
                    is_kept = True
                    return answer
                except TimeoutError as error:
                    raise self._too_slow(data) from error
                except WorkerGone:
                    continue
                finally:
                    self._after(worker, is_kept=is_kept)
        finally:
            self._places.release()
        raise _crashed(data)

    async def run_async(self, question: bytes, data: bytes, *, body_max: int, wait_s: float) -> Answer:
        """`run` for an event loop, which goes on meanwhile. Raises as `run`.

        Who is cancelled leaves the line; a process that has the image already finishes it, for itself.
        """
        if not await self._places.acquire_async(wait_s):
            raise _nobody_free()
        asking = asyncio.create_task(self._asked(question, data, body_max))
        self._exchanges.add(asking)
        asking.add_done_callback(self._has_ended)
        return await asyncio.shield(asking)

    async def _asked(self, question: bytes, data: bytes, body_max: int) -> Answer:
        try:
            for turn in range(TRIES):
                worker = self._idle_worker() if turn == 0 else None
                if worker is None:
                    worker = await asyncio.to_thread(self._new_worker)
                is_kept = False
                try:
                    answer = await exchange_async(worker.line, (question, data), self._limit_s, body_max)
                    is_kept = True
                    return answer
                except TimeoutError as error:
                    raise self._too_slow(data) from error
                except WorkerGone:
                    continue
                finally:
                    if is_kept:
                        self._after(worker, is_kept=True)
                    else:  # which waits for the end of the process
                        with suppress(RuntimeError):  # all of them are being ended
                            self._starter.submit(self._after, worker, is_kept=False)
        finally:
            self._places.release()
        raise _crashed(data)

    def _has_ended(self, asking: asyncio.Task[Answer]) -> None:
        self._exchanges.discard(asking)
        if not asking.cancelled():
            asking.exception()  # has been seen, also where nobody waits for it any more

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            workers = list(self._all)
            self._all.clear()
            self._idle.clear()
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            worker.end(END_S)
        self._starter.shutdown()

    def _idle_worker(self) -> "_Worker | None":
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive():
                    return worker
                self._all.discard(worker)
                worker.end(0)  # it died while it had nothing to do
        return None

    def _new_worker(self) -> "_Worker":
        try:
            worker = self._starter.submit(_Worker, self._command, self._memory_bytes).result()
        except (OSError, RuntimeError) as error:
            raise DecoderUnavailable("No process for decoding can be started at the moment; try again.") from error
        with self._lock:
            self._all.add(worker)
        try:
            worker.ask(None, START_S, 0)
        except (TimeoutError, WorkerGone) as error:
            self._after(worker, is_kept=False)
            raise DecoderUnavailable("No process for decoding can be started at the moment; try again.") from error
        return worker

    def _after(self, worker: "_Worker", *, is_kept: bool) -> None:
        with self._lock:
            if is_kept and worker in self._all:
                self._idle.append(worker)
                return
            self._all.discard(worker)
            self.lost += not is_kept
        code = worker.end(0)
        if not is_kept:
            log.warning("a decoding process ended with code %s; it is replaced", code)

    def _too_slow(self, data: bytes) -> ImageTooSlow:
        return ImageTooSlow(
            f"`image` must be decoded within {self._limit_s:g} s; got {len(data)} bytes that take longer."
        )


def _nobody_free() -> DeadlinePassed:
    return DeadlinePassed("No decoder was free before the request's time was up; try again shortly.")


def _crashed(data: bytes) -> ImageCrashed:
    return ImageCrashed(
        f"`image` must be one that decodes; got {len(data)} bytes that end the process which decodes them. Save it "
        "again with another program."
    )


class _Worker:
    """One process and the line to it."""

    def __init__(self, command: Sequence[str], memory_bytes: int) -> None:
        self.line, theirs = socket.socketpair()
        with theirs:
            try:
                # In a process group of its own, so that Ctrl-C reaches the server only.
                self._process = subprocess.Popen(  # noqa: S603 - our own command line
                    [*command, str(os.getpid()), str(memory_bytes)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    process_group=0,
                )
            except OSError:
                self.line.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: tuple[bytes, bytes] | None, limit_s: float, body_max: int) -> Answer:
        return exchange(self.line, question, limit_s, body_max)

    def hang_up(self) -> None:
        with suppress(OSError):
            self.line.shutdown(socket.SHUT_RDWR)

    def end(self, wait_s: float) -> int:
        """Its exit code; killed when it has not ended by then."""
        self.hang_up()
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self.line.close()
