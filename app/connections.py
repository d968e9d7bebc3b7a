"""Connections as the web server holds them: how many, how long a head may take to come, how large it may be, how slowly
an answer may be read.

uvicorn bounds none of these by itself when its quicker parser is installed.
"""

import asyncio
import http
import json
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from app.settings import Settings

HEAD_LIMIT_BYTES = 64 * 2**10  # request line and headers
HEAD_END = b"\r\n\r\n"
READ_RATE_BYTES = 1024  # a second: the slowest reader that is waited for


class BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, with an end to patience; `limits` is set on a subclass for each server."""

    connections_limit = 1000
    head_wait_s = 10.0
    answer_wait_s = 60.0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first head, or refuse one connection too many."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._head_last = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.connections_limit:
            self._refuse(503, "too_many_connections", "There are too many connections; try again shortly.")
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and look whether they brought a head to its end."""
        if self.transport.is_closing():
            return
        before = self.cycle
        is_in_body = before is not None and before.more_body and not before.response_complete
        if not is_in_body:
            seen = self._head_last + data  # the end of the head may come in parts
            end = seen.find(HEAD_END)
            self._head_bytes += len(data) if end < 0 else end
            self._head_last = seen[1 - len(HEAD_END) :]
            if self._head_bytes > HEAD_LIMIT_BYTES:
                detail = f"Request line and headers must be at most {HEAD_LIMIT_BYTES} bytes."
                self._refuse(431, "head_too_large", detail)
                return
        super().data_received(data)
        if self.cycle is not before and not self.flow.write_paused:
            self._forget_answer()
        if self.cycle is not before or is_in_body:
            self._head_bytes, self._head_last = 0, b""
            self._forget_timer()
        elif self._head_timer is None:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._forget_timer()
        self._forget_answer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More of an answer waits for the caller than is kept."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Most of it was taken."""
        self._forget_answer()
        super().resume_writing()
        if self.cycle is not None and self.cycle.response_complete:
            self._expect_reading()

    def on_response_complete(self) -> None:
        """Nothing more comes; what waits now is the end of the last answer."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.flow.write_paused:
            self._expect_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of every error."""
        self._refuse(400, "request_malformed", msg)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_wait_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            detail = f"The head of the request must arrive within {self.head_wait_s:g} s."
            self._refuse(408, "head_too_slow", detail)

    def _expect_reading(self) -> None:
        self._forget_answer()
        waiting = self.transport.get_write_buffer_size()
        if waiting:
            self._answer_timer = self.loop.call_later(self.answer_wait_s, self._look_at_reading, waiting)

    def _look_at_reading(self, before: int) -> None:
        """End the connection of a caller who has read too little since so many bytes waited; nothing can be told.

        Nothing was added to them since: the service writes no more until most of it was taken.
        """
        waiting = self.transport.get_write_buffer_size()
        if waiting and before - waiting < READ_RATE_BYTES * self.answer_wait_s:
            self.transport.abort()
        else:
            self._expect_reading()

    def _forget_answer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """A last answer in the shape of every error; there is no path to name as its instance yet."""
        title = http.HTTPStatus(status).phrase
        problem: dict[str, Any] = {"type": f"urn:oddity:problem:{code}", "title": title, "status": status}
        body = json.dumps({**problem, "detail": detail, "instance": "/", "code": code}).encode()
        head = f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
        more = "retry-after: 1\r\n" if status == 503 else ""
        self.transport.write(f"{head}{more}connection: close\r\n\r\n".encode() + body)
        self.transport.close()


def protocol(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol of a server with these settings, for uvicorn."""
    limits = ("connections_limit", "head_wait_s", "answer_wait_s")
    return type("Connection", (BoundedProtocol,), {name: getattr(settings, name) for name in limits})
