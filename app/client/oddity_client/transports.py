"""The two ways to drive calls and plans: blocking, and awaited. Whatever is more than that stands elsewhere."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, aclosing, closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx

from oddity_client.calls import Call, Listen, Out, Pause, Plan
from oddity_client.errors import OddityError
from oddity_client.retries import Lost, Reply, Retries, exchange, failure

T = TypeVar("T")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)
DATA = "data: "  # of a server-sent event


@dataclass(frozen=True)
class Line(Generic[H]):
    """The connection that a client and what it hands out share."""

    http: H
    where: str
    retries: Retries = field(default_factory=Retries)

    def arguments(self, call: Call[Any], stack: ExitStack) -> dict[str, Any]:
        """The request as httpx takes it; files are opened, and closed with the stack."""
        headers = {"Idempotency-Key": call.key, "If-Match": call.match}
        told: dict[str, Any] = {
            "method": call.method,
            "url": call.path,
            "params": {name: _text(value) for name, value in call.query.items() if value is not None},
            "headers": {name: value for name, value in headers.items() if value is not None},
        }
        if call.parts:
            told["files"] = [part.opened(stack) for part in call.parts]
            told["data"] = dict(call.form)
        elif call.json is not None:
            told["json"] = call.json
        return told


def headers_of(api_key: str | None) -> dict[str, str]:
    """What every request carries."""
    return {"Accept": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})


class Synchronous:
    """Drives calls and plans, and waits."""

    _line: Line[httpx.Client]

    def _send(self, call: Call[T]) -> T:
        plan = exchange(call, self._line.retries, self._line.where)
        step: Call[T] | Pause = next(plan)
        try:
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(plan)
                else:
                    step = plan.send(self._attempt(step))
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _attempt(self, call: Call[Any]) -> Reply | Lost:
        with ExitStack() as stack:
            request = self._line.http.build_request(**self._line.arguments(call, stack))
            try:
                answer = self._line.http.send(request, stream=True)
                with closing(answer):
                    if call.sink is not None and answer.is_success:
                        with call.sink.open("wb") as file:
                            for chunk in answer.iter_bytes():
                                file.write(chunk)
                        return Reply(answer.status_code, call.sink)
                    return _reply(call, answer.status_code, answer.headers, answer.read())
            except httpx.TransportError as error:
                return Lost(_reason(error))

    def _listen(self, call: Call[T]) -> Iterator[T]:
        """Each event; ends where the connection does. Raises Refused, NotOddity."""
        with ExitStack() as stack:
            request = self._line.http.build_request(**self._line.arguments(call, stack))
            try:
                answer = self._line.http.send(request, stream=True)
                with closing(answer):
                    if not answer.is_success:
                        raise failure(_reply(call, answer.status_code, answer.headers, answer.read()), self._line.where)
                    for line in answer.iter_lines():
                        if line.startswith(DATA):
                            yield call.read(json.loads(line.removeprefix(DATA)))
            except httpx.TransportError:
                return

    def _follow(self, plan: Plan[T]) -> Iterator[T]:
        step = next(plan, None)
        while step is not None:
            told: Any = None
            try:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                elif isinstance(step, Out):
                    yield step.value
                elif isinstance(step, Listen):
                    for told in self._listen(step.call):
                        yield told
                else:
                    told = self._send(step)
            except OddityError as error:
                step = _thrown(plan, error)
            else:
                step = _next(plan, told)


class Asynchronous:
    """Drives calls and plans with asyncio."""

    _line: Line[httpx.AsyncClient]

    async def _send(self, call: Call[T]) -> T:
        plan = exchange(call, self._line.retries, self._line.where)
        step: Call[T] | Pause = next(plan)
        try:
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(plan)
                else:
                    step = plan.send(await self._attempt(step))
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def _attempt(self, call: Call[Any]) -> Reply | Lost:
        with ExitStack() as stack:
            request = self._line.http.build_request(**self._line.arguments(call, stack))
            try:
                answer = await self._line.http.send(request, stream=True)
                async with aclosing(answer):
                    if call.sink is not None and answer.is_success:
                        with call.sink.open("wb") as file:
                            async for chunk in answer.aiter_bytes():
                                file.write(chunk)
                        return Reply(answer.status_code, call.sink)
                    return _reply(call, answer.status_code, answer.headers, await answer.aread())
            except httpx.TransportError as error:
                return Lost(_reason(error))

    async def _listen(self, call: Call[T]) -> AsyncIterator[T]:
        """Each event; ends where the connection does. Raises Refused, NotOddity."""
        with ExitStack() as stack:
            request = self._line.http.build_request(**self._line.arguments(call, stack))
            try:
                answer = await self._line.http.send(request, stream=True)
                async with aclosing(answer):
                    if not answer.is_success:
                        raise failure(
                            _reply(call, answer.status_code, answer.headers, await answer.aread()), self._line.where
                        )
                    async for line in answer.aiter_lines():
                        if line.startswith(DATA):
                            yield call.read(json.loads(line.removeprefix(DATA)))
            except httpx.TransportError:
                return

    async def _follow(self, plan: Plan[T]) -> AsyncIterator[T]:
        step = next(plan, None)
        while step is not None:
            told: Any = None
            try:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Out):
                    yield step.value
                elif isinstance(step, Listen):
                    async for told in self._listen(step.call):
                        yield told
                else:
                    told = await self._send(step)
            except OddityError as error:
                step = _thrown(plan, error)
            else:
                step = _next(plan, told)


class Closing:
    """A blocking client that is closed at the end of a `with`."""

    _line: Line[httpx.Client]

    def close(self) -> None:
        """Close the connections."""
        self._line.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClosing:
    """An asynchronous client that is closed at the end of an `async with`."""

    _line: Line[httpx.AsyncClient]

    async def close(self) -> None:
        """Close the connections."""
        await self._line.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _reply(call: Call[Any], status: int, headers: Mapping[str, str], content: bytes) -> Reply:
    retry_after = headers.get("retry-after")
    if call.is_bytes and 200 <= status < 300:
        return Reply(status, content, retry_after)
    if not content:
        return Reply(status, None, retry_after)
    try:
        return Reply(status, json.loads(content), retry_after)
    except ValueError:
        return Reply(status, None, retry_after)


def _reason(error: httpx.TransportError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)


def _next(plan: Plan[T], told: Any) -> Any:
    try:
        return plan.send(told)
    except StopIteration:
        return None


def _thrown(plan: Plan[T], error: OddityError) -> Any:
    try:
        return plan.throw(error)
    except StopIteration:
        return None
