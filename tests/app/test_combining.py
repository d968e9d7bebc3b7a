"""Callers answered together: each gets its own answer, of work that began after it came."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.combining import COMBINED_MAX, Combiner

WAIT_S = 30.0


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


def in_line(combiner: Combiner, callers: int) -> None:
    """Return when so many stand in line."""
    deadline = threading.Event()
    for _ in range(int(100 * WAIT_S)):
        if len(combiner._line) == callers:
            return
        deadline.wait(0.01)
    raise AssertionError(f"{len(combiner._line)} of {callers} came")


def held_first(combiner: Combiner, held: Held, threads: ThreadPoolExecutor) -> object:
    first = threads.submit(combiner.run, "a", 0, held.work)
    assert held.began.wait(WAIT_S)
    return first


def test_those_who_come_meanwhile_are_answered_together() -> None:
    combiner, held = Combiner(), Held()
    with ThreadPoolExecutor(20) as threads:
        first = held_first(combiner, held, threads)
        others = [threads.submit(combiner.run, "a", number, held.work) for number in range(1, 11)]
        in_line(combiner, 10)
        held.may_go_on.set()
        assert [one.result(WAIT_S) for one in (first, *others)] == [10 * number for number in range(11)]
    assert [sorted(turn) for turn in held.turns] == [[0], list(range(1, 11))]


def test_what_differs_in_its_key_is_not_mixed_and_nobody_is_forgotten() -> None:
    combiner, held = Combiner(), Held()
    with ThreadPoolExecutor(20) as threads:
        held_first(combiner, held, threads)
        others = [threads.submit(combiner.run, "ab"[number % 2], number, held.work) for number in range(1, 11)]
        in_line(combiner, 10)
        held.may_go_on.set()
        assert [one.result(WAIT_S) for one in others] == [10 * number for number in range(1, 11)]
    assert {tuple(sorted(turn)) for turn in held.turns} == {(0,), (1, 3, 5, 7, 9), (2, 4, 6, 8, 10)}


def test_one_turn_takes_no_more_than_its_most() -> None:
    combiner, held = Combiner(), Held()
    with ThreadPoolExecutor(COMBINED_MAX + 10) as threads:
        held_first(combiner, held, threads)
        others = [threads.submit(combiner.run, "a", number, held.work) for number in range(COMBINED_MAX + 5)]
        in_line(combiner, COMBINED_MAX + 5)
        held.may_go_on.set()
        assert [one.result(WAIT_S) for one in others] == [10 * number for number in range(COMBINED_MAX + 5)]
    assert [len(turn) for turn in held.turns] == [1, COMBINED_MAX, 5]


def test_only_the_one_at_fault_sees_the_error() -> None:
    combiner, held = Combiner(), Held()

    def strict(numbers: list[int]) -> list[int]:
        if 3 in numbers:
            raise ValueError(f"three is among {len(numbers)}")
        return [10 * number for number in numbers]

    with ThreadPoolExecutor(20) as threads:
        held_first(combiner, held, threads)
        others = {number: threads.submit(combiner.run, "a", number, strict) for number in range(1, 6)}
        in_line(combiner, 5)
        held.may_go_on.set()
        with pytest.raises(ValueError, match="three is among 1"):
            others.pop(3).result(WAIT_S)
        assert {number: one.result(WAIT_S) for number, one in others.items()} == {n: 10 * n for n in (1, 2, 4, 5)}
    assert combiner.run("a", 7, strict) == 70, "and the line goes on"


def test_many_threads_get_their_own_answers() -> None:
    combiner = Combiner()

    def doubled(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    def caller(start: int) -> bool:
        numbers = range(start, start + 200)
        return [combiner.run(number % 3, number, doubled) for number in numbers] == [2 * one for one in numbers]

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(caller, range(0, 16_000, 1000)))
    assert not combiner._line and not combiner._is_at_work
