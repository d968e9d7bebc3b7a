"""Callers who ask while others are being answered are answered together next, by one thread.

A look at the record, a search and a turn of a thread take hardly longer for several than for one. Nobody waits for
company: who finds nobody at work begins at once.

Source: Hendler, Incze, Shavit, Tzafrir, "Flat combining and the synchronization-parallelism tradeoff", SPAA 2010.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

COMBINED_MAX = 64  # tasks of one turn
Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[list[Any]], Sequence[Any]]


@dataclass(slots=True, eq=False)
class _Place:
    """A caller in line."""

    task: Any
    work: Work
    answer: asyncio.Future[Any]
    context: Context = field(default_factory=copy_context)


class Combiner:
    """Lines of callers, one for each key; for one event loop. Work of different keys goes on side by side."""

    def __init__(self, in_thread: Callable[[Callable[[], list[Any]]], Awaitable[list[Any]]]) -> None:
        """`in_thread` runs what it is given in a thread."""
        self._in_thread = in_thread
        self._lines: dict[Hashable, list[_Place]] = {}  # of keys that are at work
        self._turns: set[asyncio.Task[None]] = set()  # held here: a loop forgets tasks that nobody holds

    async def run(
        self, key: Hashable, task: Task, work: Callable[[list[Task]], Sequence[Result | Exception]]
    ) -> Result:
        """What the work returns for this task, begun after this call.

        The work gets tasks of equal keys, at most 64, and returns a result for each, in order; of several callers'
        works any is used. An exception among the results is raised for its task. Where the work itself raises, each
        task is tried alone, so that only the one at fault sees the error.
        """
        place = _Place(task, work, asyncio.get_running_loop().create_future())
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = [place]
            self._begin(key)
        else:
            line.append(place)
        result: Result = await place.answer
        return result

    def _begin(self, key: Hashable) -> None:
        """Have a turn for those in line, and who else comes before the loop gets round to it."""
        turn = asyncio.get_running_loop().create_task(self._turn(key), context=self._lines[key][0].context)
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)

    async def _turn(self, key: Hashable) -> None:
        line = [one for one in self._lines[key] if not one.answer.done()]  # others have left
        together, self._lines[key] = line[:COMBINED_MAX], line[COMBINED_MAX:]
        try:
            results = await self._results(together)
        except asyncio.CancelledError:  # the loop ends
            for one in together + self._lines.pop(key):
                one.answer.cancel()
            raise
        for place, result in zip(together, results, strict=True):
            if place.answer.done():
                continue
            if isinstance(result, Exception):
                place.answer.set_exception(result)
            else:
                place.answer.set_result(result)
        if self._lines[key]:
            self._begin(key)
        else:
            del self._lines[key]

    async def _results(self, together: list[_Place]) -> list[Any]:
        """A result or an exception for each."""
        if not together:
            return []
        try:
            return await self._in_thread(partial(_served, together[0].work, [one.task for one in together]))
        except Exception as error:  # rule-skip: broad-except no thread can be had, and nobody is to wait for ever
            return [error] * len(together)


def _served(work: Work, tasks: list[Any]) -> list[Any]:
    """A result or an exception for each."""
    try:
        results = list(work(tasks))
        assert len(results) == len(tasks)
        return results
    except Exception as error:  # rule-skip: broad-except it goes to the caller whose task it is
        return [error] if len(tasks) == 1 else [one for task in tasks for one in _served(work, [task])]
