"""The server's end of the line to a decoding worker: a question goes out, its answer comes in time or not at all.

Apart from what both ends know, so that no worker loads an event loop.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Generator
from typing import Any

from models.awaited import Awaited
from models.decoding.wire import FACTS_MAX, HEAD, JOINED_BYTES, packed

PIECE_BYTES = 2**16  # asked for at once: time is looked at in between
SENT_BYTES = 2**18  # sent at once, most images whole
LIMIT = struct.Struct("@ll")  # seconds and microseconds, as the kernel wants them
LEAST_S = 0.001  # nothing at all would mean no limit


class WorkerGone(Exception):
    """The other end has closed, or says what no worker of ours says."""


def exchange(
    line: socket.socket, question: tuple[bytes, bytes] | None, limit_s: float, body_max: int
) -> tuple[dict[str, Any], bytes]:
    """The answer to a question (facts as JSON, a body), or what the other end says unasked, within so many seconds.

    Raises:
        TimeoutError: it took longer.
        WorkerGone: the other end closed, or sent no message, or one that is larger than `body_max`.
    """
    until = time.monotonic() + limit_s
    reading = _reading(body_max)
    try:
        for part in () if question is None else packed(*question):
            left = memoryview(part)
            while left:
                _limit(line, socket.SO_SNDTIMEO, until)
                left = left[line.send(left[:SENT_BYTES]) :]
        wanted = next(reading)
        while True:
            _limit(line, socket.SO_RCVTIMEO, until)
            wanted = reading.send(line.recv(wanted))
    except StopIteration as whole:
        return _answer(whole.value)
    except BlockingIOError as error:  # how the kernel says that a limit has passed
        raise TimeoutError from error
    except ConnectionError as error:
        raise WorkerGone(str(error)) from error


async def exchange_async(
    line: socket.socket, question: tuple[bytes, bytes], limit_s: float, body_max: int
) -> tuple[dict[str, Any], bytes]:
    """`exchange` for an event loop, which goes on meanwhile. Who is cancelled leaves an answer on its way."""
    loop = asyncio.get_running_loop()
    until = time.monotonic() + limit_s
    reading = _reading(body_max)
    try:
        for part in packed(*question):
            left = memoryview(part)
            while left:
                try:
                    left = left[line.send(left[:SENT_BYTES], socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    await _ready(line, loop.add_writer, loop.remove_writer, until)
        wanted = next(reading)
        while True:
            await _ready(line, loop.add_reader, loop.remove_reader, until)
            try:
                wanted = reading.send(line.recv(wanted, socket.MSG_DONTWAIT))
            except BlockingIOError:  # it was said to be ready and is not: systems may
                continue
    except StopIteration as whole:
        return _answer(whole.value)
    except ConnectionError as error:
        raise WorkerGone(str(error)) from error
    finally:
        line.setblocking(True)  # for `exchange`: some event loops leave what they have watched without


async def _ready(
    line: socket.socket, add: Callable[..., None], remove: Callable[[socket.socket], bool], until: float
) -> None:
    """Wait until the line can be read or written. Raises TimeoutError."""
    ready = Awaited()
    add(line, ready.settle)
    try:
        if not await ready.wait(_left(until)):
            raise TimeoutError
    finally:
        remove(line)


def _reading(body_max: int) -> Generator[int, bytes, tuple[bytes, bytes]]:
    """Asks for so many bytes at most, is sent those that came, and returns facts and body once they are whole."""
    held = bytearray()
    wanted = HEAD.size
    body_from: int | None = None
    while len(held) < wanted:
        part = yield max(PIECE_BYTES, min(wanted - len(held), JOINED_BYTES))
        if not part:
            raise WorkerGone("closed")
        held += part
        if body_from is None and len(held) >= HEAD.size:
            facts_bytes, body_bytes = HEAD.unpack_from(held)
            if facts_bytes > FACTS_MAX or body_bytes > body_max:
                raise WorkerGone(f"an answer of {facts_bytes} and {body_bytes} bytes")
            body_from = HEAD.size + facts_bytes
            wanted = body_from + body_bytes
    with memoryview(held) as whole:
        return bytes(whole[HEAD.size : body_from]), bytes(whole[body_from:wanted])


def _answer(said: tuple[bytes, bytes]) -> tuple[dict[str, Any], bytes]:
    try:
        facts = json.loads(said[0])
    except ValueError as error:
        raise WorkerGone(str(error)) from error
    if not isinstance(facts, dict):
        raise WorkerGone("an answer that is no object")
    return facts, said[1]


def _limit(line: socket.socket, which: int, until: float) -> None:
    """Have the kernel watch over the time: with `settimeout` Python makes three calls of each."""
    whole, rest = divmod(max(_left(until), LEAST_S), 1.0)
    line.setsockopt(socket.SOL_SOCKET, which, LIMIT.pack(int(whole), int(rest * 1e6)))


def _left(until: float) -> float:
    """Seconds until then. Raises TimeoutError where it has passed."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
