"""Callers who ask while another is being answered are answered together next, by one of them.

A search of several queries takes less time than as many searches. Nobody waits for company: who finds nobody at work
begins at once.

Source: Hendler, Incze, Shavit, Tzafrir, "Flat combining and the synchronization-parallelism tradeoff", SPAA 2010.
"""

import threading
from collections.abc import Callable, Hashable, Sequence, Sized
from itertools import accumulate
from typing import Any, TypeVar

COMBINED_MAX = 64  # tasks of one turn
Task = TypeVar("Task")
Result = TypeVar("Result")


def rows_of(several: Sequence[Sized]) -> list[slice]:
    """Where the rows of each of several arrays lie when they are joined.

    >>> rows_of([[1, 2], [3]])
    [slice(0, 2, None), slice(2, 3, None)]
    """
    ends = list(accumulate(map(len, several)))
    return list(map(slice, [0, *ends], ends))


class _Place:
    """A caller in line."""

    __slots__ = ("failure", "gate", "has_ended", "key", "result", "task")

    def __init__(self, key: Hashable, task: Any) -> None:
        self.key = key
        self.task = task
        self.result: Any = None
        self.failure: Exception | None = None
        self.has_ended = False
        self.gate = threading.Lock()  # held until the task has ended, or it is this caller's turn to work
        self.gate.acquire()


class Combiner:
    """One line of callers; safe for threads. Work of different lines goes on side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: list[_Place] = []
        self._is_at_work = False

    def run(self, key: Hashable, task: Task, work: Callable[[list[Task]], Sequence[Result]]) -> Result:
        """What the work returns for this task, begun after this call.

        The work gets tasks of equal keys, at most 64, and returns a result for each, in order; of several callers'
        works any is used. Where it raises, each task is tried alone, so that only the one at fault sees the error.
        """
        place = _Place(key, task)
        with self._lock:
            self._line.append(place)
            is_first, self._is_at_work = not self._is_at_work, True
        if not is_first:
            place.gate.acquire()
        if not place.has_ended:
            self._lead(place, work)
        if place.failure is not None:
            raise place.failure
        result: Result = place.result
        return result

    def _lead(self, own: _Place, work: Callable[[list[Any]], Sequence[Any]]) -> None:
        with self._lock:
            alike = [one for one in self._line if one is not own and one.key == own.key]
            together = [own, *alike[: COMBINED_MAX - 1]]
            self._line = [one for one in self._line if one not in together]
        try:
            _serve(together, work)
        finally:
            with self._lock:
                following = self._line[0] if self._line else None
                self._is_at_work = following is not None
            for one in together:
                one.has_ended = True
                one.gate.release()
            if following is not None:
                following.gate.release()


def _serve(places: list[_Place], work: Callable[[list[Any]], Sequence[Any]]) -> None:
    try:
        for place, result in zip(places, work([one.task for one in places]), strict=True):
            place.result = result
    except Exception as error:  # rule-skip: broad-except it goes to the caller whose task it is
        if len(places) == 1:
            places[0].failure = error
            return
        for place in places:
            _serve([place], work)
