"""Clients of the real application: without a network, or of servers that answer as a test wants."""

import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from oddity_client import AsyncClient, Client, Retries

from app.cli.in_process import running
from app.main import create_app
from app.settings import Settings

AT_ONCE = Retries(first_pause_s=0.001, chance=random.Random(0))


@pytest.fixture(scope="module")
def oddity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A blocking client of the real application."""
    with (
        running(create_app(quick(tmp_path_factory))) as transport,
        httpx.Client(base_url="http://oddity", transport=transport) as http,
        Client("the test", http=http, retries=AT_ONCE) as client,
    ):
        yield client


def quick(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings on a folder of its own, with a quick embedding."""
    return Settings(data=tmp_path_factory.mktemp("client"), weights="stand-in", image_size=32, threads=1)


@asynccontextmanager
async def asynchronous(settings: Settings) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of the real application."""
    application = create_app(settings)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(base_url="http://oddity", transport=httpx.ASGITransport(application)) as http,
        AsyncClient("the test", http=http, retries=AT_ONCE) as client,
    ):
        yield client


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Told:
    """An answer to give."""

    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    breaks_off: bool = False  # instead of any answer
    announced: int | None = None  # bytes promised, where those that come are fewer


Script = Callable[[int], Told]
"""The answer to the request of this number, the first being 1."""


@contextmanager
def scripted(script: Script) -> Iterator[tuple[str, list[Seen]]]:
    """The address of a real server that answers as it is told, and the requests that it saw."""
    seen: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("transfer-encoding") == "chunked":
                body = b"".join(self._chunks())
            seen.append(Seen(self.requestline, {name.lower(): value for name, value in self.headers.items()}, body))
            told = script(len(seen))
            if told.breaks_off:
                self.close_connection = True
                return
            content = told.body.encode()
            self.send_response(told.status)
            self.send_header("content-length", str(told.announced or len(content)))
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = told.announced is not None

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
