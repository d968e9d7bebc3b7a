"""Requests as values: what is asked of the service and how the answer is read, whoever sends it and however often.

A method of the interface is written once, as a function that makes a `Call` or a plan; `operation` and `streamed` turn
it into a method that answers at once on a blocking client, and into one to be awaited on an asynchronous client.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload
from urllib.parse import quote

from pydantic import BaseModel

from oddity_client.answers import Page
from oddity_client.uploads import Part

if TYPE_CHECKING:
    from oddity_client.transports import Asynchronous, Synchronous

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what its answer becomes. It may be repeated: see `Retries`."""

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    key: str | None = None  # Idempotency-Key
    match: str | None = None  # If-Match
    is_bytes: bool = False  # the answer is read as bytes, not as JSON
    sink: Path | None = None  # the answer is written to this file
    absent: Callable[[], T] | None = None  # what 404 is read as, where it is no error

    def asking(self, **query: Any) -> Self:
        """The same call with more in its query."""
        return replace(self, query={**self.query, **query})


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before going on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Out(Generic[T]):
    """Something for whoever drives a plan to hand on."""

    value: T


@dataclass(frozen=True, slots=True)
class Listen(Generic[T]):
    """Hand on each event that the service sends in answer to a call, for as long as the connection holds.

    Answered by the last of them, None if none came.
    """

    call: Call[T]


Plan = Generator[Call[Any] | Pause | Out[T] | Listen[T], Any, None]
"""Calls and pauses one after another, each call answered by what it reads, and values to hand on between them."""


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not given."""
    return {name: value for name, value in values.items() if value is not None}


def reading(kind: type[M]) -> Callable[[Any], M]:
    """A reader of answers of this kind."""
    return kind.model_validate


def listed(kind: type[M], key: str) -> Callable[[Any], list[M]]:
    """A reader of answers that hold a list under this key."""
    return lambda body: [kind.model_validate(one) for one in body[key]]


def page_of(kind: type[M], key: str) -> Callable[[Any], Page[M]]:
    """A reader of pages that hold a list under this key."""

    def read(body: Any) -> Page[M]:
        return Page(items=[kind.model_validate(one) for one in body[key]], next=body["next"])

    return read


def nothing(body: Any) -> None:
    """A reader of answers without a body."""


def pages(call: Call[Page[T]]) -> Plan[T]:
    """Every item of every page."""
    following: str | None = None
    while True:
        page: Page[T] = yield call.asking(cursor=following)
        for item in page.items:
            yield Out(item)
        if page.next is None:
            return
        following = page.next


class operation(Generic[P, T]):
    """A method that asks one thing: T on a blocking client, to be awaited on an asynchronous one."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build
        functools.update_wrapper(self, build)  # type: ignore[arg-type]

    @overload
    def __get__(self, place: None, owner: type) -> Self: ...
    @overload
    def __get__(self, place: "Synchronous", owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, place: "Asynchronous", owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, place: Any, owner: type) -> Any:
        """The method, bound."""
        if place is None:
            return self

        @functools.wraps(self._build)
        def ask(*args: P.args, **kwargs: P.kwargs) -> Any:
            return place._send(self._build(place, *args, **kwargs))

        return ask


class streamed(Generic[P, T]):
    """A method that gives one thing after another: Iterator[T] on a blocking client, else AsyncIterator[T]."""

    def __init__(self, build: Callable[Concatenate[Any, P], Plan[T]]) -> None:
        self._build = build
        functools.update_wrapper(self, build)  # type: ignore[arg-type]

    @overload
    def __get__(self, place: None, owner: type) -> Self: ...
    @overload
    def __get__(self, place: "Synchronous", owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, place: "Asynchronous", owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, place: Any, owner: type) -> Any:
        """The method, bound."""
        if place is None:
            return self

        @functools.wraps(self._build)
        def follow(*args: P.args, **kwargs: P.kwargs) -> Any:
            return place._follow(self._build(place, *args, **kwargs))

        return follow
