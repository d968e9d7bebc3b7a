"""models/decoding/wire.py: whole answers from any parts, and an end to patience."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvloop

from models.decoding.exchange import WorkerGone, exchange, exchange_async
from models.decoding.wire import JOINED_BYTES, packed, read_message

QUESTION = (b'{"task": "square"}', b"picture")
Exchange = Callable[..., tuple[dict[str, Any], bytes]]


def in_asyncio(*given: Any) -> tuple[dict[str, Any], bytes]:
    return asyncio.run(exchange_async(*given))


def in_uvloop(*given: Any) -> tuple[dict[str, Any], bytes]:
    return uvloop.run(exchange_async(*given))


each_way = pytest.mark.parametrize("exchanged", [exchange, in_asyncio, in_uvloop])


@contextmanager
def other_end(act: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A line whose other end does this in a thread."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with suppress(OSError):
            act(theirs)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours:
            yield ours
    finally:
        theirs.close()
        thread.join()


@each_way
@pytest.mark.parametrize("size", [0, 1, 5000, JOINED_BYTES, JOINED_BYTES + 1, 3 * JOINED_BYTES])
def test_question_and_answer_arrive_whole(size: int, exchanged: Exchange) -> None:
    def echo(line: socket.socket) -> None:
        with line.makefile("rb") as reader:
            message = read_message(reader)
            assert message is not None
            for part in packed(*message):
                line.sendall(part)

    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with other_end(echo) as line:
        assert exchanged(line, (b'{"n": %d}' % size, body), 20.0, size) == ({"n": size}, body)


@each_way
def test_crumbs_are_put_together(exchanged: Exchange) -> None:
    def crumbs(line: socket.socket) -> None:
        line.recv(1000)
        for byte in b"".join(packed({"ready": 7}, b"abc")):
            line.sendall(bytes([byte]))

    with other_end(crumbs) as line:
        assert exchanged(line, QUESTION, 20.0, 10) == ({"ready": 7}, b"abc")


def test_what_is_said_unasked_is_heard() -> None:
    with other_end(lambda line: line.sendall(b"".join(packed({"ready": 7}, b"")))) as line:
        assert exchange(line, None, 20.0, 0) == ({"ready": 7}, b"")


@pytest.mark.parametrize("other_way", [in_asyncio, in_uvloop])
def test_a_line_serves_threads_and_event_loops_in_turn(other_way: Exchange) -> None:
    def slow_echo(line: socket.socket) -> None:
        with line.makefile("rb") as reader:
            while (message := read_message(reader)) is not None:
                time.sleep(0.02)  # whoever asks has to wait
                line.sendall(b"".join(packed(*message)))

    with other_end(slow_echo) as line:
        for turn in range(6):
            body = b"picture" * turn
            assert (exchange if turn % 2 else other_way)(line, (b'{"n": %d}' % turn, body), 20.0, 100) == (
                {"n": turn},
                body,
            )
        line.shutdown(socket.SHUT_RDWR)


@each_way
@pytest.mark.parametrize("kind", ["silent", "trickling", "deaf"])
def test_patience_ends(kind: str, exchanged: Exchange) -> None:
    over = threading.Event()

    def slow(line: socket.socket) -> None:
        if kind == "trickling":
            for byte in b"".join(packed({}, b"0" * 1000)):
                line.sendall(bytes([byte]))
                if over.wait(0.02):
                    return
        over.wait(60)

    body = b"0" * (32 * JOINED_BYTES) if kind == "deaf" else b"picture"  # more than any line holds
    began = time.monotonic()
    with other_end(slow) as line:
        try:
            with pytest.raises(TimeoutError):
                exchanged(line, (QUESTION[0], body), 0.3, 1000)
        finally:
            over.set()
    assert time.monotonic() - began >= 0.3


@each_way
@pytest.mark.parametrize("said", [b"", b"\0" * 5, b"".join(packed({}, b"0" * 11)), b"".join(packed([], b""))])  # type: ignore[arg-type]
def test_who_closes_or_says_too_much_is_gone(said: bytes, exchanged: Exchange) -> None:
    def act(line: socket.socket) -> None:
        line.sendall(said)
        line.shutdown(socket.SHUT_WR)
        line.recv(100)

    with other_end(act) as line, pytest.raises(WorkerGone):
        exchanged(line, QUESTION, 20.0, 10)
