"""Callers answered together: each gets its own answer, of work that began after it came."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from app.combining import COMBINED_MAX, Combiner

WAIT_S = 30.0
caller: ContextVar[int] = ContextVar("caller")


class Held:
    """Work that stands still until it is told to go on, and notes who was answered together."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.began = threading.Event()
        self.may_go_on = threading.Event()

    def work(self, numbers: list[int]) -> list[int]:
        self.turns.append(numbers)
        self.began.set()
        assert self.may_go_on.wait(WAIT_S)
        return [10 * number for number in numbers]


def run(test: Callable[[Combiner], Awaitable[None]]) -> None:
    """The test on an event loop; nothing is left of its lines."""

    async def whole() -> None:
        combiner = Combiner(asyncio.to_thread)
        await asyncio.wait_for(test(combiner), WAIT_S)
        await asyncio.sleep(0)
        assert not combiner._lines and not combiner._turns

    asyncio.run(whole())


async def held_first(combiner: Combiner, held: Held) -> asyncio.Task[int]:
    first = asyncio.create_task(combiner.run("a", 0, held.work))
    await asyncio.to_thread(held.began.wait, WAIT_S)
    return first


async def in_line(*coming: Awaitable[int]) -> list[asyncio.Task[int]]:
    """Tasks that stand in line."""
    tasks = [asyncio.ensure_future(one) for one in coming]
    await asyncio.sleep(0)
    return tasks


def test_those_who_come_meanwhile_are_answered_together() -> None:
    async def test(combiner: Combiner) -> None:
        held = Held()
        first = await held_first(combiner, held)
        others = await in_line(*(combiner.run("a", number, held.work) for number in range(1, 11)))
        held.may_go_on.set()
        assert await asyncio.gather(first, *others) == [10 * number for number in range(11)]
        assert held.turns == [[0], list(range(1, 11))]

    run(test)


def test_what_differs_in_its_key_is_not_mixed_and_does_not_wait() -> None:
    async def test(combiner: Combiner) -> None:
        held, other = Held(), Held()
        first = await held_first(combiner, held)
        others = await in_line(*(combiner.run("a", number, held.work) for number in (2, 4)))
        other.may_go_on.set()
        assert await combiner.run("b", 1, other.work) == 10, "while the first stands still"
        held.may_go_on.set()
        assert await asyncio.gather(first, *others) == [0, 20, 40]
        assert (held.turns, other.turns) == ([[0], [2, 4]], [[1]])

    run(test)


def test_one_turn_takes_no_more_than_its_most() -> None:
    async def test(combiner: Combiner) -> None:
        held = Held()
        await held_first(combiner, held)
        others = await in_line(*(combiner.run("a", number, held.work) for number in range(COMBINED_MAX + 5)))
        held.may_go_on.set()
        assert await asyncio.gather(*others) == [10 * number for number in range(COMBINED_MAX + 5)]
        assert [len(turn) for turn in held.turns] == [1, COMBINED_MAX, 5]

    run(test)


def test_only_the_one_at_fault_sees_the_error() -> None:
    def strict(numbers: list[int]) -> list[int]:
        if 3 in numbers:
            raise ValueError(f"three is among {len(numbers)}")
        return [10 * number for number in numbers]

    def lenient(numbers: list[int]) -> list[int | Exception]:
        return [ValueError("three is among 1") if number == 3 else 10 * number for number in numbers]

    async def test(combiner: Combiner) -> None:
        for work in (strict, lenient):
            held = Held()
            await held_first(combiner, held)
            others = await in_line(*(combiner.run("a", number, work) for number in range(1, 6)))
            held.may_go_on.set()
            with pytest.raises(ValueError, match="three is among 1"):
                await others.pop(2)
            assert await asyncio.gather(*others) == [10, 20, 40, 50]
        assert await combiner.run("a", 7, strict) == 70, "and the line goes on"

    run(test)


def test_who_leaves_is_not_worked_for_and_holds_nobody_up() -> None:
    async def test(combiner: Combiner) -> None:
        held = Held()
        first = await held_first(combiner, held)
        gone, stays = await in_line(*(combiner.run("a", number, held.work) for number in (1, 2)))
        gone.cancel()
        first.cancel()
        await asyncio.wait([gone, first])
        held.may_go_on.set()
        assert await stays == 20
        assert held.turns == [[0], [2]]

    run(test)


def test_a_turn_runs_as_the_first_of_those_it_is_for() -> None:
    async def test(combiner: Combiner) -> None:
        held = Held()
        await held_first(combiner, held)

        async def ask(number: int) -> int:
            caller.set(number)
            return await combiner.run("a", number, lambda numbers: [caller.get()] * len(numbers))

        others = await in_line(ask(5), ask(6))
        held.may_go_on.set()
        assert await asyncio.gather(*others) == [5, 5]

    run(test)


def test_where_no_thread_can_be_had_everybody_is_told() -> None:
    async def none(_work: Callable[[], object]) -> object:
        raise RuntimeError("can't start new thread")

    async def test() -> None:
        combiner = Combiner(none)
        asking = [combiner.run("a", number, lambda numbers: numbers) for number in range(3)]
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(one) for one in found] == ["can't start new thread"] * 3

    asyncio.run(asyncio.wait_for(test(), WAIT_S))


def test_an_end_of_the_loop_leaves_nobody_waiting() -> None:
    combiner, held, ended = Combiner(asyncio.to_thread), Held(), []

    async def test() -> None:
        async def ask(number: int) -> None:
            try:
                await combiner.run("a", number, held.work)
            except asyncio.CancelledError:
                ended.append(number)
                raise

        asking = [asyncio.create_task(ask(number)) for number in range(3)]
        await asyncio.to_thread(held.began.wait, WAIT_S)
        threading.Timer(0.05, held.may_go_on.set).start()
        del asking

    asyncio.run(test())
    assert sorted(ended) == [0, 1, 2] and not combiner._lines


def test_many_get_their_own_answers() -> None:
    def doubled(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    async def test(combiner: Combiner) -> None:
        async def ask(start: int) -> bool:
            return all(
                [await combiner.run(number % 3, number, doubled) == 2 * number for number in range(start, start + 200)]
            )

        assert all(await asyncio.gather(*(ask(1000 * number) for number in range(16))))

    run(test)
