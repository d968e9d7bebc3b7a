"""A bounded number of places, given in the order in which they were asked for."""

import threading
from collections import deque


class Places:
    """So many threads at once, the others in line; safe for threads.

    A semaphore of the standard library lets whoever comes just as a place is free go before those who are being woken
    for it. Under load some then wait twice as long as others.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[threading.Lock] = deque()  # of those who wait, each held until it is its turn
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Threads in line."""
        return len(self._line)

    def acquire(self, timeout_s: float) -> bool:
        """Take a place; False where none was free in time."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Lock()
            turn.acquire()
            self._line.append(turn)
        if turn.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            return True
        with self._lock:
            if turn in self._line:
                self._line.remove(turn)
                return False
        return True  # it was given in the very last moment

    def release(self) -> None:
        """Give a place back, to the first in line."""
        with self._lock:
            if self._line:
                self._line.popleft().release()
            else:
                self._free += 1
