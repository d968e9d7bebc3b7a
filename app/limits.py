"""How many requests are worked on at once, how many may wait, and that nobody waits for a caller who has gone."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class LeaveWhenGone:
    """ASGI middleware: a request whose caller has hung up leaves the line for a slot.

    What is worked on in a thread already is finished, so that a write is done or not done, never half. Only requests
    with a body are watched, from its end to the start of the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        watcher: asyncio.Task[None] | None = None
        is_answered = False

        async def watch(work: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not is_answered:
                work.cancel()

        async def watched() -> Message:
            nonlocal watcher
            if watcher is not None:
                await watcher  # the body has ended: all there is to receive is the end of the connection
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watcher = asyncio.create_task(watch(work))
            return message

        async def answering(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        with anyio.CancelScope() as work:
            try:
                await self.app(scope, watched, answering)
            finally:
                if watcher is not None:
                    watcher.cancel()
