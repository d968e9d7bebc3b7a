"""The clients: `Client` blocks, `AsyncClient` is awaited; both have the same methods."""

from collections import deque
from collections.abc import Callable

import httpx

from oddity_client.answers import Job
from oddity_client.collection import CollectionOperations
from oddity_client.errors import JobFailed
from oddity_client.keys import KeyOperations
from oddity_client.retries import Retries
from oddity_client.service import ServiceOperations
from oddity_client.transports import AsyncClosing, Asynchronous, Closing, Line, Synchronous, headers_of
from oddity_client.upkeep import UpkeepOperations

TIMEOUT_S = 60.0
Told = Callable[[Job], None]
"""Is told of a job at each look, to show how far it is."""


class Collection(CollectionOperations, UpkeepOperations, Synchronous):
    """One collection of a service, whether it is there yet or not."""

    def __init__(self, name: str, line: Line[httpx.Client]) -> None:
        self.name = name
        self._line = line


class Client(ServiceOperations, KeyOperations, Synchronous, Closing):
    """A service at a URL. Close it, or use it in a `with`.

    `http` takes the place of the connections made here; it must know its `base_url`, and carries its own headers.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        made = http or httpx.Client(base_url=url, headers=headers_of(api_key), timeout=timeout_s)
        self._line = Line(made, url, retries or Retries())
        self.url = url

    def collection(self, name: str) -> Collection:
        """The collection of this name; nothing is asked yet."""
        return Collection(name, self._line)

    def wait(
        self, job: Job | str, *, told: Told | None = None, timeout_s: float | None = None, every_s: float = 0.2
    ) -> Job:
        """The job when it has succeeded; `told` is called with it at each look. Raises JobFailed, WaitedTooLong."""
        current: deque[Job] = deque(maxlen=1)
        for one in self.follow(job, every_s=every_s, timeout_s=timeout_s):
            current.append(one)
            if told is not None:
                told(one)
        return _succeeded(current[0])


class AsyncCollection(CollectionOperations, UpkeepOperations, Asynchronous):
    """One collection of a service, whether it is there yet or not."""

    def __init__(self, name: str, line: Line[httpx.AsyncClient]) -> None:
        self.name = name
        self._line = line


class AsyncClient(ServiceOperations, KeyOperations, Asynchronous, AsyncClosing):
    """A service at a URL, for asyncio. Close it, or use it in an `async with`. Files are read in the loop's thread."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        made = http or httpx.AsyncClient(base_url=url, headers=headers_of(api_key), timeout=timeout_s)
        self._line = Line(made, url, retries or Retries())
        self.url = url

    def collection(self, name: str) -> AsyncCollection:
        """The collection of this name; nothing is asked yet."""
        return AsyncCollection(name, self._line)

    async def wait(
        self, job: Job | str, *, told: Told | None = None, timeout_s: float | None = None, every_s: float = 0.2
    ) -> Job:
        """The job when it has succeeded; `told` is called with it at each look. Raises JobFailed, WaitedTooLong."""
        current: deque[Job] = deque(maxlen=1)
        async for one in self.follow(job, every_s=every_s, timeout_s=timeout_s):
            current.append(one)
            if told is not None:
                told(one)
        return _succeeded(current[0])


def _succeeded(job: Job) -> Job:
    if job.state != "succeeded":
        raise JobFailed(job)
    return job
