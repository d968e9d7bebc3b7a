"""A bounded number of places, given in the order in which they were asked for."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from models.awaited import Awaited


class Places:
    """So many threads or tasks at once, the others in line; safe for threads.

    A semaphore of the standard library lets whoever comes just as a place is free go before those who are being woken
    for it. Under load some then wait twice as long as others.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[Callable[[], object]] = deque()  # what tells those who wait that it is their turn
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many are in line."""
        return len(self._line)

    def acquire(self, timeout_s: float) -> bool:
        """Take a place; False where none was free in time."""
        turn = threading.Lock()
        turn.acquire()
        if self._took_one(turn.release) or turn.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            return True
        return not self._has_left(turn.release)

    async def acquire_async(self, timeout_s: float) -> bool:
        """`acquire` for an event loop, which goes on meanwhile; who is cancelled leaves the line."""
        turn = Awaited()
        if self._took_one(turn.tell):
            return True
        try:
            return await turn.wait(timeout_s) or not self._has_left(turn.tell)
        except asyncio.CancelledError:
            if not self._has_left(turn.tell):
                self.release()
            raise

    def release(self) -> None:
        """Give a place back, to the first in line."""
        with self._lock:
            if self._line:
                self._line.popleft()()
            else:
                self._free += 1

    def _took_one(self, tell: Callable[[], object]) -> bool:
        """Whether a place was free; else this stands in line."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._line.append(tell)
            return False

    def _has_left(self, tell: Callable[[], object]) -> bool:
        """Whether this stood in line until now; else it was given a place in the very last moment."""
        with self._lock:
            if tell in self._line:
                self._line.remove(tell)
                return True
            return False
