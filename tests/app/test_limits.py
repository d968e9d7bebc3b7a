"""Bounded memory and a line that only living callers stand in."""

import asyncio
import threading
from typing import Any

import anyio
import pytest

from app import limits
from app.bodies import BodyLimit
from app.errors import Busy, TooLarge
from app.limits import LeaveWhenGone, Slots, remaining_s

PATIENCE_S = 30.0


class Wire:
    """One connection: hands out what the test puts in, keeps what the application sends."""

    def __init__(self, announced: int | None = None) -> None:
        headers = [] if announced is None else [(b"content-length", str(announced).encode())]
        self.scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers}
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []

    def put(self, body: bytes = b"", more: bool = False) -> None:
        self._in.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def hang_up(self) -> None:
        self._in.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self._in.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def whole_body(receive) -> bytes:
    found, more = b"", True
    while more:
        message = await receive()
        found, more = found + message.get("body", b""), message.get("more_body", False)
    return found


def test_bodies_in_flight_share_a_budget_and_give_it_back() -> None:
    async def run() -> None:
        entered, leave = anyio.Event(), anyio.Event()

        async def application(scope, receive, send) -> None:
            await whole_body(receive)
            entered.set()
            await leave.wait()

        limit = BodyLimit(application, limit_bytes=60, budget_bytes=100, limit_values=0)
        first, announced, counted, small = Wire(60), Wire(50), Wire(), Wire(40)
        async with anyio.create_task_group() as group:
            first.put(b"a" * 60)
            group.start_soon(limit, first.scope, first.receive, first.send)
            await entered.wait()
            assert limit.held_bytes == 60
            # Announced: refused before a byte is asked for. Not announced: as soon as it is too much.
            with pytest.raises(Busy):
                await limit(announced.scope, announced.receive, announced.send)
            counted.put(b"b" * 30, more=True)
            counted.put(b"b" * 20)
            with pytest.raises(Busy):
                await limit(counted.scope, counted.receive, counted.send)
            assert limit.held_bytes == 60
            leave.set()
            small.put(b"c" * 40)
            await limit(small.scope, small.receive, small.send)
        assert limit.held_bytes == 0

    anyio.run(run)


def test_values_of_json_count_for_what_they_take_once_parsed() -> None:
    async def run() -> None:
        entered, leave = anyio.Event(), anyio.Event()

        async def application(scope, receive, send) -> None:
            await whole_body(receive)
            entered.set()
            await leave.wait()

        limit = BodyLimit(application, limit_bytes=100, budget_bytes=0, limit_values=10)
        first, second, image = Wire(), Wire(), Wire()
        image.scope["headers"] = [(b"content-type", b"image/png"), (b"content-type", b"application/json")]
        async with anyio.create_task_group() as group:
            first.put(b"[[],[],[],[]]")  # eight marks
            group.start_soon(limit, first.scope, first.receive, first.send)
            await entered.wait()
            second.put(b"[1,2,3,4]")
            with pytest.raises(Busy):
                await limit(second.scope, second.receive, second.send)
            image.put(b"[1,2,3,4]")
            leave.set()
            await limit(image.scope, image.receive, image.send)
        assert limit.held_bytes == 0
        second.put(b"," * 11)
        with pytest.raises(TooLarge, match="10 values"):
            await limit(second.scope, second.receive, second.send)

    anyio.run(run)


def test_one_body_alone_always_fits_and_none_is_larger_than_the_limit() -> None:
    async def run() -> None:
        async def application(scope, receive, send) -> None:
            await whole_body(receive)

        limit = BodyLimit(application, limit_bytes=1000, budget_bytes=10, limit_values=0)
        wire, large = Wire(1000), Wire(1001)
        wire.put(b"a" * 1000)
        await limit(wire.scope, wire.receive, wire.send)
        with pytest.raises(TooLarge):
            await limit(large.scope, large.receive, large.send)
        assert limit.held_bytes == 0

    anyio.run(run)


def test_a_caller_who_hangs_up_leaves_the_line_and_running_work_is_finished() -> None:
    done: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def work(name: str) -> None:
        if name == "first":
            started.set()
            assert go_on.wait(PATIENCE_S)
        done.append(name)

    async def run() -> None:
        slots = Slots(working=1, waiting=1, deadline_s=PATIENCE_S)

        async def application(scope, receive, send) -> None:
            name = (await whole_body(receive)).decode()
            await slots.run(work, name)
            await send({"type": "http.response.start", "status": 200, "headers": []})

        line = LeaveWhenGone(application)
        wires = {name: Wire() for name in ("first", "second", "third")}

        async def ask(name: str) -> None:
            wire = wires[name]
            wire.put(name.encode())
            await line(wire.scope, wire.receive, wire.send)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(ask, "first")
                await anyio.to_thread.run_sync(started.wait)
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(ask, "second")
                    await anyio.wait_all_tasks_blocked()
                    with pytest.raises(Busy):
                        await slots.run(work, "none")
                    assert not slots.are_shared  # who stands in line is not worked on
                    wires["second"].hang_up()
                wires["first"].hang_up()  # it is being worked on
                group.start_soon(ask, "third")  # there is a place again
                await anyio.wait_all_tasks_blocked()
                go_on.set()
        assert done == ["first", "third"]
        assert wires["second"].sent == []
        assert [one["type"] for one in wires["third"].sent] == ["http.response.start"]

    anyio.run(run)


def test_standing_in_line_counts_towards_the_deadline() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert leave.wait(PATIENCE_S)

    async def run() -> None:
        slots = Slots(working=1, waiting=5, deadline_s=0.2)
        async with anyio.create_task_group() as group:
            group.start_soon(slots.run, hold)
            await anyio.to_thread.run_sync(entered.wait)
            with pytest.raises(Busy) as refused:
                await slots.run(lambda: None)
            assert refused.value.code == "deadline_passed"
            leave.set()
        # Its place is free again, and the thread knows what is left.
        assert 0 <= await slots.run(remaining_s, 99.0) <= 0.2

    anyio.run(run)
    assert remaining_s(99.0) == 99.0


def test_many_refusals_are_held_back_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELD_BACK_S", PATIENCE_S)
    entered, leave = threading.Event(), threading.Event()
    more = 5
    told: list[str] = []

    def hold() -> None:
        entered.set()
        assert leave.wait(PATIENCE_S)

    async def ask(slots: Slots) -> None:
        with pytest.raises(Busy) as refused:
            await slots.run(lambda: None)
        told.append(refused.value.code)

    async def run() -> None:
        slots = Slots(working=1, waiting=0, deadline_s=PATIENCE_S)
        async with anyio.create_task_group() as working:
            working.start_soon(slots.run, hold)
            await anyio.to_thread.run_sync(entered.wait)
            async with anyio.create_task_group() as asking:
                for _ in range(limits.REFUSED_AT_ONCE + more):
                    asking.start_soon(ask, slots)
                with anyio.fail_after(PATIENCE_S / 3):
                    while len(told) < limits.REFUSED_AT_ONCE:
                        await anyio.sleep(0)
                await anyio.wait_all_tasks_blocked()
                assert told == [Busy.code] * limits.REFUSED_AT_ONCE
                assert slots.waiting == 0  # whoever is held back stands in nobody's way
                asking.cancel_scope.cancel()
            slots.is_ending = True  # nobody is kept then
            with anyio.fail_after(PATIENCE_S / 3):
                await ask(slots)
            leave.set()

    anyio.run(run)


def test_who_is_worked_on_knows_of_the_others() -> None:
    async def run() -> None:
        slots = Slots(working=2, waiting=1, deadline_s=PATIENCE_S)
        async with slots.place():
            assert not slots.are_shared
            async with slots.place():
                assert slots.are_shared and slots.working == 2
                together = [
                    slots.together("a", number, lambda numbers: [2 * one for one in numbers]) for number in (1, 2)
                ]
                assert await asyncio.gather(*together) == [2, 4]
            assert not slots.are_shared
        assert slots.working == slots.waiting == 0

    anyio.run(run)
