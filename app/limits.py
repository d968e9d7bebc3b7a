"""Slots: how many requests are worked on at once, how many may wait."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from app.errors import Busy

Result = TypeVar("Result")


class Slots:
    """Runs blocking work in threads, a bounded number at once.

    The event loop never computes. More than `waiting` requests in line are refused with 503, so that memory stays
    bounded under any load.
    """

    def __init__(self, working: int, waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(working)
        self._places = working + waiting
        self._taken = 0

    async def run(self, work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """The result of `work(*arguments, **named)`, computed in a thread. Raises Busy when the line is full."""
        if self._taken >= self._places:
            raise Busy("Too many requests are waiting; try again shortly.")
        self._taken += 1
        try:
            return await anyio.to_thread.run_sync(partial(work, *arguments, **named), limiter=self._limiter)
        finally:
            self._taken -= 1
