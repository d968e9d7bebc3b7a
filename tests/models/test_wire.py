"""models/decoding/wire.py: whole answers from any parts, and an end to patience."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from models.decoding.wire import JOINED_BYTES, WorkerGone, exchange, packed, read_message

QUESTION = ({"task": "square"}, b"picture")


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


@pytest.mark.parametrize("size", [0, 1, 5000, JOINED_BYTES, JOINED_BYTES + 1, 3 * JOINED_BYTES])
def test_question_and_answer_arrive_whole(size: int) -> None:
    def echo(line: socket.socket) -> None:
        with line.makefile("rb") as reader:
            message = read_message(reader)
            assert message is not None
            for part in packed(*message):
                line.sendall(part)

    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with other_end(echo) as line:
        assert exchange(line, ({"n": size}, body), 20.0, size) == ({"n": size}, body)


def test_crumbs_are_put_together() -> None:
    def crumbs(line: socket.socket) -> None:
        for byte in b"".join(packed({"ready": 7}, b"abc")):
            line.sendall(bytes([byte]))

    with other_end(crumbs) as line:
        assert exchange(line, None, 20.0, 10) == ({"ready": 7}, b"abc")


@pytest.mark.parametrize("kind", ["silent", "trickling", "deaf"])
def test_patience_ends(kind: str) -> None:
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
                exchange(line, ({"task": "square"}, body), 0.3, 1000)
        finally:
            over.set()
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("said", [b"", b"\0" * 5, b"".join(packed({}, b"0" * 11)), b"".join(packed([], b""))])  # type: ignore[arg-type]
def test_who_closes_or_says_too_much_is_gone(said: bytes) -> None:
    def act(line: socket.socket) -> None:
        line.sendall(said)
        line.shutdown(socket.SHUT_WR)
        line.recv(100)

    with other_end(act) as line, pytest.raises(WorkerGone):
        exchange(line, QUESTION, 20.0, 10)
