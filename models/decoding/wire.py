"""Messages between a server and its decoding workers: facts as JSON, then bytes. Nothing that is read can run code."""

import json
import socket
import struct
import time
from io import BufferedReader
from typing import Any

HEAD = struct.Struct("<IQ")  # bytes of the facts, bytes of the body
FACTS_MAX = 2**16
PIECE_BYTES = 2**16  # asked for at once: time is looked at in between
SENT_BYTES = 2**18  # sent at once, most images whole
JOINED_BYTES = 2**20  # a larger body is not copied to be sent
LIMIT = struct.Struct("@ll")  # seconds and microseconds, as the kernel wants them
LEAST_S = 0.001  # nothing at all would mean no limit


class WorkerGone(Exception):
    """The other end has closed, or says what no worker of ours says."""


def packed(facts: dict[str, Any], body: bytes) -> tuple[bytes, ...]:
    """A message to be sent, in one piece where it is small: each further call of a busy server waits for its turn."""
    text = json.dumps(facts).encode()
    head = HEAD.pack(len(text), len(body)) + text
    return (head + body,) if len(body) <= JOINED_BYTES else (head, body)


def read_message(reader: BufferedReader) -> tuple[dict[str, Any], bytes] | None:
    """The next message, waiting for as long as it takes; None at the end."""
    head = reader.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    facts_bytes, body_bytes = HEAD.unpack(head)
    facts = json.loads(reader.read(facts_bytes))
    return facts, reader.read(body_bytes)


def exchange(
    line: socket.socket, question: tuple[dict[str, Any], bytes] | None, limit_s: float, body_max: int
) -> tuple[dict[str, Any], bytes]:
    """The answer to a question, or what the other end says unasked, within so many seconds.

    Raises:
        TimeoutError: it took longer.
        WorkerGone: the other end closed, or sent no message, or one that is larger than `body_max`.
    """
    until = time.monotonic() + limit_s
    try:
        if question is not None:
            for part in packed(*question):
                _send(line, part, until)
        incoming = _Incoming(line, until)
        facts_bytes, body_bytes = HEAD.unpack(incoming.take(HEAD.size))
        if facts_bytes > FACTS_MAX or body_bytes > body_max:
            raise WorkerGone(f"an answer of {facts_bytes} and {body_bytes} bytes")
        answer = json.loads(incoming.take(facts_bytes))
        if not isinstance(answer, dict):
            raise WorkerGone("an answer that is no object")
        return answer, incoming.take(body_bytes)
    except BlockingIOError as error:  # how the kernel says that a limit has passed
        raise TimeoutError from error
    except (ConnectionError, ValueError) as error:
        raise WorkerGone(str(error)) from error


def _send(line: socket.socket, message: bytes, until: float) -> None:
    left = memoryview(message)
    while left:
        _limit(line, socket.SO_SNDTIMEO, until)
        left = left[line.send(left[:SENT_BYTES]) :]


class _Incoming:
    """What comes from the other end, taken in parts of any size."""

    def __init__(self, line: socket.socket, until: float) -> None:
        self._line, self._until = line, until
        self._held = bytearray()

    def take(self, size: int) -> bytes:
        while len(self._held) < size:
            _limit(self._line, socket.SO_RCVTIMEO, self._until)
            part = self._line.recv(max(PIECE_BYTES, min(size - len(self._held), JOINED_BYTES)))
            if not part:
                raise WorkerGone("closed")
            self._held += part
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


def _limit(line: socket.socket, which: int, until: float) -> None:
    """Have the kernel watch over the time: with `settimeout` Python makes three calls of each."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    whole, rest = divmod(max(left, LEAST_S), 1.0)
    line.setsockopt(socket.SOL_SOCKET, which, LIMIT.pack(int(whole), int(rest * 1e6)))
