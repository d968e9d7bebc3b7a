"""What a task of an event loop waits for and any thread ends."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress


class Awaited:
    """Made by the task that waits; it is told once or more, from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._told: asyncio.Future[bool] = self.loop.create_future()

    def tell(self) -> None:
        """Let the task go on."""
        tell_all([self])

    def settle(self) -> None:
        """The same from within the loop."""
        self._end(True)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was told in time, while the loop goes on; None sets no limit."""
        if timeout_s is None:
            return await self._told
        # asyncio.timeout does the same in several times as many steps, and every request waits a few times.
        limit = self.loop.call_later(timeout_s, self._end, False)
        try:
            return await self._told
        finally:
            limit.cancel()

    def _end(self, in_time: bool) -> None:
        if not self._told.done():
            self._told.set_result(in_time)


def tell_all(several: Iterable[Awaited]) -> None:
    """Tell several at once: each call that wakes a loop may cost the caller its turn."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Awaited]] = defaultdict(list)
    for one in several:
        by_loop[one.loop].append(one)
    for loop, some in by_loop.items():
        with suppress(RuntimeError):  # the loop has ended, and the tasks with it
            loop.call_soon_threadsafe(_settle, some)


def _settle(several: list[Awaited]) -> None:
    for one in several:
        one.settle()
