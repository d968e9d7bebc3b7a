"""Many callers, one network: images that arrive together are computed together.

Worker threads own the network. While a batch is computed, requests collect; up to sixteen of their images are
taken next, one from each request in turn, so that a request of one image never stands behind one of a
thousand. When the network is idle nothing waits: the first image starts at once (`wait_s` 0) or after `wait_s`
at most. Where many wait already, the next batch is handed over while one is computed, so that the network does
not stand still until a thread gets its turn.

What a caller gets never depends on whom it met: rows of one padded batch do not influence each other, and a
batch that fails is repeated request by request, so that only the one at fault sees the error.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.awaited import Awaited, tell_all
from models.backbones.embedder import Embedder, PreparedImage, padded_size
from models.backbones.engine import BATCH_MAX
from models.errors import DeadlinePassed, ParameterInvalid, QueueFull

WAITING_AHEAD = 8  # images that make a batch worth handing over early: a larger one is hardly quicker for each


class Ticket:
    """Images accepted by a BatchingEmbedder: wait for their vectors, or give them up."""

    def __init__(self, owner: "BatchingEmbedder", prepared: Sequence[PreparedImage], deadline: float | None) -> None:
        self._owner = owner
        self.images = tuple(prepared)
        self.deadline = deadline  # on the owner's clock
        self.rows: dict[int, NDArray[np.float32]] = {}  # vectors that are there, by number of the image
        self.taken = 0  # images handed to the worker so far
        self.failure: BaseException | None = None
        self.has_ended = False
        self.awaited: Awaited | None = None  # to be told once it has ended
        self._gate = threading.Lock()  # held until then: an Event takes several times as long to set and to wait for
        self._gate.acquire()

    def result(self) -> NDArray[np.float32]:
        """Vectors of the images, in their order, (n, width); waits for them no longer than the deadline.

        Raises:
            DeadlinePassed: the deadline passed first, or the ticket was cancelled; its images have left the
            queue.
        """
        remaining_s = self._owner.remaining_s(self)
        if self._gate.acquire(timeout=-1 if remaining_s is None else min(remaining_s, threading.TIMEOUT_MAX)):
            self._gate.release()  # for whoever asks again
        else:
            self.cancel()
        # What the network raised belongs to this ticket alone, so that raising it here shares no traceback.
        if self.failure is not None:
            raise self.failure
        if not self.rows:
            return np.empty((0, self._owner.embedder.width), np.float32)
        if len(self.rows) == 1:
            return self.rows[0][None]  # without a copy, at which numpy would give way to other threads
        return np.stack([self.rows[number] for number in range(len(self.images))])

    def cancel(self) -> None:
        """Leave the queue; nothing happens where the vectors are already there."""
        self._owner.withdraw(self)

    async def result_async(self) -> NDArray[np.float32]:
        """`result` for an event loop, which goes on meanwhile. Who is cancelled gives the images up. Raises as that."""
        ended = Awaited()
        try:
            if self._owner.is_to_tell(self, ended) and not await ended.wait(self._owner.remaining_s(self)):
                self.cancel()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.result()

    def end(self, failure: BaseException | None = None) -> None:
        """Let go the thread that waits; of two ends the first counts. With the owner's lock held."""
        if not self.has_ended:
            self.failure = failure
            self.has_ended = True
            self._gate.release()


class BatchingEmbedder:
    """A thread-safe front of one embedder: a bounded queue, deadlines, and batches filled across requests."""

    def __init__(
        self,
        embedder: Embedder,
        queue_images_max: int,
        wait_s: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        """Starts the worker thread; `observe` is told the size of each batch and the seconds it took.

        Raises:
            ParameterInvalid: `queue_images_max` is below 1 or `wait_s` is not from 0 to 1 second.
        """
        if queue_images_max < 1:
            raise ParameterInvalid(f"`queue_images_max` of the queue must be at least 1; got {queue_images_max}.")
        if not 0.0 <= wait_s <= 1.0:
            raise ParameterInvalid(f"`wait_s` of the queue must be from 0 to 1 second; got {wait_s}.")
        self.embedder = embedder  # for prepare() and maps(), which need no queue
        self._queue_images_max = queue_images_max
        self._wait_s = wait_s
        self._clock = clock
        self._observe = observe
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()  # tickets with images not yet taken
        self._closing = False
        self._last_ended = -math.inf  # when the network gave back a batch
        self._running = 0  # batches given to the network and not back yet
        self._workers = [
            threading.Thread(target=self._work, name=f"embedding-{number}", daemon=True)
            for number in range(embedder.engine.runs_at_once)
        ]
        for worker in self._workers:
            worker.start()

    def submit(self, prepared: Sequence[PreparedImage], deadline_s: float | None = None) -> NDArray[np.float32]:
        """Vectors of the images, in their order, within `deadline_s` seconds from now; None sets no limit.

        Shapes: n images -> (n, width).

        Raises:
            QueueFull: the queue cannot take the images now, or is closing.
            DeadlinePassed: the vectors were not there in time; the images have left the queue.
            FingerprintMismatch: an image was prepared for another preprocessing.
        """
        return self.enqueue(prepared, deadline_s).result()

    async def submit_async(
        self, prepared: Sequence[PreparedImage], deadline_s: float | None = None
    ) -> NDArray[np.float32]:
        """`submit` for an event loop, which goes on meanwhile. Raises as that; who is cancelled leaves the queue."""
        return await self.enqueue(prepared, deadline_s).result_async()

    def enqueue(self, prepared: Sequence[PreparedImage], deadline_s: float | None = None) -> Ticket:
        """A ticket for the images, accepted at once or refused at once.

        A request larger than the whole queue is accepted where nothing else waits: it could never fit
        otherwise.

        Raises:
            QueueFull: the queue cannot take the images now, or is closing.
            FingerprintMismatch: an image was prepared for another preprocessing.
        """
        self.embedder.check(prepared)
        ticket = Ticket(self, prepared, None if deadline_s is None else self._clock() + deadline_s)
        with self._changed:
            if self._closing:
                raise QueueFull("`queue` of the embedder must be open; it is closing.")
            if not ticket.images:
                ticket.end()
                return ticket
            self._drop_expired()
            waiting = self._images_waiting()
            if waiting and waiting + len(ticket.images) > self._queue_images_max:
                raise QueueFull(
                    f"`queue` of the embedder must have room for the images; got {len(ticket.images)} where "
                    f"{waiting} of {self._queue_images_max} places are taken."
                )
            self._waiting.append(ticket)
            if self._is_due():  # else nobody is woken in vain: who ends a batch looks by itself
                self._changed.notify()
        return ticket

    def images_waiting(self) -> int:
        """Images accepted and not yet given to the network."""
        with self._changed:
            return self._images_waiting()

    def remaining_s(self, ticket: Ticket) -> float | None:
        """Seconds until the ticket's deadline, at least 0; None where it has none."""
        return None if ticket.deadline is None else max(0.0, ticket.deadline - self._clock())

    def is_to_tell(self, ticket: Ticket, awaited: Awaited) -> bool:
        """Whether the ticket has not ended yet; then this is told when it has."""
        with self._changed:
            ticket.awaited = awaited
            return not ticket.has_ended

    def withdraw(self, ticket: Ticket) -> None:
        """Take a ticket out of the queue; its result() raises DeadlinePassed, unless it has already ended."""
        with self._changed:
            self._drop(ticket, DeadlinePassed("`vectors` must be computed before the caller stops waiting."))

    def close(self) -> None:
        """Refuse new images, finish the accepted ones, end the workers; returns when they have ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Below: with the lock held, except _work and _compute.

    def _images_waiting(self) -> int:
        return sum(len(ticket.images) - ticket.taken for ticket in self._waiting)

    def _drop_expired(self) -> None:
        now = self._clock()
        for ticket in [t for t in self._waiting if t.deadline is not None and t.deadline <= now]:
            self._drop(ticket, DeadlinePassed("`vectors` must be computed before the deadline; it has passed."))

    def _drop(self, ticket: Ticket, failure: BaseException) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        ticket.end(failure)
        if ticket.awaited is not None:
            ticket.awaited.tell()

    def _is_due(self) -> bool:
        """Whether a worker has a batch to take now."""
        return bool(self._waiting) and (not self._running or self._images_waiting() >= WAITING_AHEAD)

    def _next_batch(self) -> list[tuple[Ticket, int]]:
        """As many (ticket, image number) pairs as the network computes at once, one from each ticket in turn.

        What would fill a second, smaller batch stays, and joins those who come meanwhile.
        """
        batch: list[tuple[Ticket, int]] = []
        self._drop_expired()
        size = padded_size(self._images_waiting()) if self._waiting else 0
        while self._waiting and len(batch) < size:
            ticket = self._waiting.popleft()
            batch.append((ticket, ticket.taken))
            ticket.taken += 1
            if ticket.taken < len(ticket.images):
                self._waiting.append(ticket)
        return batch

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_due() or self._closing)
                if self._wait_s and not self._closing:
                    self._changed.wait_for(lambda: self._images_waiting() >= BATCH_MAX or self._closing, self._wait_s)
                batch = self._next_batch()
                if not batch and self._closing:
                    return
                self._running += 1
                if self._is_due():
                    self._changed.notify()
            if batch:
                self._compute(batch)
            with self._changed:
                self._running -= 1

    def _compute(self, batch: list[tuple[Ticket, int]]) -> None:
        began = self._clock()
        try:
            rows = self.embedder.embed([ticket.images[number] for ticket, number in batch])
        except Exception as error:  # worker loop: the error travels to the caller, the worker lives on
            tickets = list(dict.fromkeys(ticket for ticket, _ in batch))
            if len(tickets) == 1:
                with self._changed:
                    self._drop(tickets[0], error)
                return
            for one in tickets:
                self._compute([pair for pair in batch if pair[0] is one])
            return
        with self._changed:
            # A batch that was handed over early has stood in line until the one before it ended.
            awaited: list[Awaited] = []
            ended = self._clock()
            seconds, self._last_ended = ended - max(began, self._last_ended), ended
            for (ticket, number), row in zip(batch, rows, strict=True):
                # A ticket that was given up may already be read elsewhere; its rows go nowhere.
                if ticket.has_ended:
                    continue
                ticket.rows[number] = row
                if len(ticket.rows) == len(ticket.images):
                    ticket.end()
                    if ticket.awaited is not None:
                        awaited.append(ticket.awaited)
        tell_all(awaited)  # not under the lock, which whoever is told may want next
        if self._observe is not None:
            self._observe(len(batch), seconds)
