"""Messages between a server and its decoding workers: facts as JSON, then bytes. Nothing that is read can run code."""

import json
import struct
from io import BufferedReader
from typing import Any

HEAD = struct.Struct("<IQ")  # bytes of the facts, bytes of the body
FACTS_MAX = 2**16
JOINED_BYTES = 2**20  # a larger body is not copied to be sent


def packed(facts: dict[str, Any] | bytes, body: bytes) -> tuple[bytes, ...]:
    """A message to be sent, in one piece where it is small: each further call of a busy server waits for its turn.

    Facts that are sent again and again may be JSON already.
    """
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
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
