"""What a task of an event loop waits for and any thread ends."""

import asyncio
from contextlib import suppress


class Awaited:
    """Made by the task that waits; it is told once or more, from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[None] = self._loop.create_future()

    def tell(self) -> None:
        """Let the task go on."""
        with suppress(RuntimeError):  # the loop has ended, and the task with it
            self._loop.call_soon_threadsafe(self.settle)

    def settle(self) -> None:
        """The same from within the loop."""
        if not self._told.done():
            self._told.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was told in time, while the loop goes on; None sets no limit."""
        if timeout_s is None:
            await self._told
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._told
        except TimeoutError:
            return False
        return True
