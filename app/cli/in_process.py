"""The service inside this process: the same requests and answers as over the network, without a port."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal


class InProcessTransport(httpx.BaseTransport):
    """Hands requests of a blocking client to an ASGI application that runs in a thread of its own."""

    def __init__(self, application: Any, portal: BlockingPortal) -> None:
        # An exception has become a 500 with problem+json by then; the client shows that.
        self._asgi = httpx.ASGITransport(application, raise_app_exceptions=False)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The whole answer to one request."""
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        again = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        answer = await self._asgi.handle_async_request(again)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


@contextmanager
def running(application: Any) -> Iterator[InProcessTransport]:
    """A transport to the application, started before and stopped after."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(application.router.lifespan_context(application)),
    ):
        yield InProcessTransport(application, portal)
