"""How many requests are worked on at once, how many may wait, and that nobody waits for a caller who has gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.combining import Combiner, Task
from app.errors import Busy, TooSlow
from app.observe import stage

Result = TypeVar("Result")
RATE_BYTES = 4096  # a second: the slowest line that is waited for
REFUSED_AT_ONCE = 20  # in a second: the next are held back, else refusing takes the time of those who are served
HELD_BACK_S = 1.0  # as long as `Retry-After` would have them wait
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class Slots:
    """Runs blocking work in threads, a bounded number at once.

    The event loop never computes. More than `waiting` requests in line are refused with 503, so that memory stays
    bounded under any load, and so is one that has stood in line for `deadline_s`. What is left of that time then is
    what `remaining_s` tells in the thread. Where many are refused they hear of it a moment later, so that callers who
    ask again at once cannot keep the service busy with refusing.
    """

    def __init__(self, working: int, waiting: int, deadline_s: float) -> None:
        self._limiter = anyio.CapacityLimiter(working)
        self._threads = anyio.CapacityLimiter(working)
        self._deadline_s = deadline_s
        self._places = working + waiting
        self._taken = 0
        self._combiner = Combiner(self.in_thread)
        self._refused, self._refusing_since = 0, 0.0  # in the second that began then
        self.is_ending = False  # nobody is to wait any more for what may come later

    @property
    def working(self) -> int:
        """Requests worked on now."""
        return self._limiter.borrowed_tokens

    @property
    def waiting(self) -> int:
        """Requests that stand in line."""
        return max(0, self._taken - self._limiter.borrowed_tokens)

    @property
    def are_shared(self) -> bool:
        """Whether more than one request is worked on now."""
        return self._limiter.borrowed_tokens > 1

    async def run(self, work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """The result of `work(*arguments, **named)`, computed in a thread. Raises Busy: line full or slow."""
        async with self.place():
            return await self.in_thread(partial(work, *arguments, **named))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among those who are worked on, for work that waits more than it computes. Raises Busy as `run`."""
        if self._taken >= self._places:
            await self._hold_back()
            raise Busy("Too many requests are waiting; try again shortly.")
        self._taken += 1
        deadline = time.monotonic() + self._deadline_s
        place = object()  # not the task: it may run more than one piece of work
        is_working = False
        try:
            with stage("line"):
                is_working = await self._got_place(place)
            if not is_working:
                raise Busy("The request stood in line until its time was up; try again shortly.", "deadline_passed")
            _deadline.set(deadline)
            yield
        finally:
            if is_working:
                self._limiter.release_on_behalf_of(place)
            self._taken -= 1

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """The result of the work, computed in a thread; for those who have a place."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def together(
        self, key: Hashable, task: Task, work: Callable[[list[Task]], Sequence[Result | Exception]]
    ) -> Result:
        """What the work returns for this task; those who ask under one key meanwhile are next, in one thread.

        For those who have a place. As `app.combining` does it.
        """
        return await self._combiner.run(key, task, work)

    async def _hold_back(self) -> None:
        """Keep a refusal for a moment where it is one of many."""
        now = time.monotonic()
        if now - self._refusing_since >= 1.0:
            self._refused, self._refusing_since = 0, now
        self._refused += 1
        if self._refused > REFUSED_AT_ONCE and not self.is_ending:
            await anyio.sleep(HELD_BACK_S)

    async def _got_place(self, place: object) -> bool:
        """Whether there was a place in time."""
        with suppress(anyio.WouldBlock):
            self._limiter.acquire_on_behalf_of_nowait(place)
            return True
        with anyio.move_on_after(self._deadline_s):
            await self._limiter.acquire_on_behalf_of(place)
            return True
        return False


def remaining_s(otherwise: float) -> float:
    """Seconds that the request worked on in this thread has left, at least 0; `otherwise` where there is none."""
    deadline = _deadline.get()
    return otherwise if deadline is None else max(0.0, deadline - time.monotonic())


class BodyDeadline:
    """ASGI middleware: a body that comes too slowly is refused, and whoever is refused before its end is let go.

    Only the time that is waited for the caller counts: `wait_s`, and a second more for every `RATE_BYTES`.
    """

    def __init__(self, app: ASGIApp, wait_s: float) -> None:
        self.app = app
        self.wait_s = wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        is_whole = not names & {b"content-length", b"transfer-encoding"}
        waited, size = 0.0, 0

        async def timed() -> Message:
            nonlocal is_whole, waited, size
            if is_whole:
                return await receive()
            allowed = self.wait_s + size / RATE_BYTES
            began = time.monotonic()
            message: Message | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout(allowed - waited):
                    message = await receive()
            waited += time.monotonic() - began
            if message is None:
                raise TooSlow(f"The body must arrive within {allowed:.0f} s; {size} bytes of it did.")
            size += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            return message

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_whole and message["status"] >= 400:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self.app(scope, timed, answering)


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
            except ClientDisconnect:
                pass  # who leaves before the last byte of the body is gone like who leaves after it
            finally:
                if watcher is not None:
                    watcher.cancel()
