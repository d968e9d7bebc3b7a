"""Messages between a server and its decoding workers: facts as JSON, then bytes. Nothing that is read can run code."""

import json
import socket
import struct
import time
from io import BufferedReader
from typing import Any

HEAD = struct.Struct("<IQ")  # bytes of the facts, bytes of the body
FACTS_MAX = 2**16
PIECE_BYTES = 2**20


class WorkerGone(Exception):
    """The other end has closed, or says what no worker of ours says."""


def packed(facts: dict[str, Any], body: bytes) -> bytes:
    """Head and facts of a message; the body is sent after them."""
    text = json.dumps(facts).encode()
    return HEAD.pack(len(text), len(body)) + text


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
            facts, body = question
            for part in (packed(facts, body), body):
                _set_timeout(line, until)
                line.sendall(part)
        facts_bytes, body_bytes = HEAD.unpack(_received(line, HEAD.size, until))
        if facts_bytes > FACTS_MAX or body_bytes > body_max:
            raise WorkerGone(f"an answer of {facts_bytes} and {body_bytes} bytes")
        answer = json.loads(_received(line, facts_bytes, until))
        if not isinstance(answer, dict):
            raise WorkerGone("an answer that is no object")
        return answer, _received(line, body_bytes, until)
    except (ConnectionError, ValueError) as error:
        raise WorkerGone(str(error)) from error


def _received(line: socket.socket, size: int, until: float) -> bytes:
    parts: list[bytes] = []
    while size:
        _set_timeout(line, until)
        part = line.recv(min(size, PIECE_BYTES))
        if not part:
            raise WorkerGone("closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _set_timeout(line: socket.socket, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    line.settimeout(left)
