"""Files too large for memory: written to the data folder while they arrive, counted, hashed and synced.

A job that was given such a file names it in its parameters. Whoever finishes the job deletes the file; what nobody
deleted (a worker was killed, a queued job was cancelled) goes at the next upload, once no job names it any more.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from app.bodies import plain_json
from app.errors import Invalid, NotFound, TooLarge, UnsupportedMedia
from app.jobs.context import LeaseLost, Stopping

CHUNK_BYTES = 2**20  # written and hashed at once, in a thread
FIELD_LIMIT_BYTES = 2**16
FIELDS_MAX = 64
HEADER_LIMIT_BYTES = 2**13
LEFT_OVER_S = 3600.0  # younger files may belong to a request that has not submitted its job yet


@dataclass(frozen=True, slots=True)
class Received:
    """A file that arrived completely and is on disk."""

    path: Path
    size: int
    sha256: str
    filename: str | None

    def described(self) -> dict[str, Any]:
        """How a job's parameters name it."""
        return {"name": self.path.name, "filename": self.filename, "bytes": self.size, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Receiver:
    """What a path takes: a multipart file of this name or a raw body of these kinds, up to a limit; else JSON."""

    field: str
    folder: Path
    limit_bytes: int
    limit_setting: str
    kinds: frozenset[str]

    async def read(self, request: Request) -> tuple[Received | None, dict[str, Any]]:
        """The file, if one was sent, and every parameter of query, form or JSON.

        Raises TooLarge, UnsupportedMedia, Invalid; nothing is left on disk then.
        """
        content_type = request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        query = _once(request.query_params.multi_items())
        if kind == "multipart/form-data":
            form = _Form(self, content_type)
            return await form.read(request, query)
        if kind in self.kinds:
            with ExitStack() as undo:
                file = _File(self, None)
                undo.callback(file.discard)
                async for chunk in request.stream():
                    await file.add(chunk)
                received = await file.finish()
                undo.pop_all()
            return received, query
        if kind in ("application/json", "") or kind.endswith("+json"):
            return None, _joined(query, await _json(request))
        raise UnsupportedMedia(
            f"Content type `{kind}` is not read here; send multipart/form-data with `{self.field}`, the file itself as "
            f"{' or '.join(sorted(self.kinds))}, or JSON."
        )


class _File:
    """One file on its way to the disk."""

    def __init__(self, receiver: Receiver, filename: str | None) -> None:
        receiver.folder.mkdir(exist_ok=True)
        self._receiver = receiver
        self._filename = filename
        self._path = receiver.folder / secrets.token_hex(16)
        self._handle = self._path.open("xb")
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._size = 0

    async def add(self, chunk: bytes) -> None:
        """Take some bytes; they may be written later."""
        self.take(chunk)
        await self.flush(CHUNK_BYTES)

    def take(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._receiver.limit_bytes:
            raise TooLarge(
                f"`{self._receiver.field}` must be at most {self._receiver.limit_bytes} bytes; got more. The setting "
                f"{self._receiver.limit_setting} raises that.",
                "upload_too_large",
            )
        self._pending += chunk

    async def flush(self, at_least: int = 1) -> None:
        if len(self._pending) >= at_least:
            await anyio.to_thread.run_sync(self._write)

    async def finish(self) -> Received:
        """The file, on disk with the folder that names it."""
        await self.flush()
        if not self._size:
            raise Invalid(f"`{self._receiver.field}` is empty.", "body_empty")
        await anyio.to_thread.run_sync(self._sync)
        return Received(self._path, self._size, self._digest.hexdigest(), self._filename)

    def discard(self) -> None:
        self._handle.close()
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        self._handle.write(self._pending)
        self._digest.update(self._pending)
        self._pending.clear()

    def _sync(self) -> None:
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        sync_folder(self._receiver.folder)


class _Form:
    """A multipart body read piece by piece: one file, and text fields."""

    def __init__(self, receiver: Receiver, content_type: str) -> None:
        self._receiver = receiver
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise Invalid(
                "The multipart body cannot be read: its content type names no boundary.", "multipart_malformed"
            )
        self._boundary = options[b"boundary"]
        self._file: _File | None = None
        self._fields: dict[str, str] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._name = ""
        self._text: bytearray | None = None  # of the field being read; None: the file is being read
        self._is_complete = False

    async def read(self, request: Request, query: dict[str, Any]) -> tuple[Received | None, dict[str, Any]]:
        parser = MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._complete,
            },
        )
        with ExitStack() as undo:
            undo.callback(self._discard)
            try:
                async for chunk in request.stream():
                    parser.write(chunk)
                    if self._file is not None:
                        await self._file.flush(CHUNK_BYTES)
                parser.finalize()
            except FormParserError as error:
                raise Invalid(f"The multipart body cannot be read: {error}", "multipart_malformed") from error
            if not self._is_complete:
                raise Invalid("The multipart body ends before its last boundary.", "multipart_malformed")
            received = None if self._file is None else await self._file.finish()
            parameters = _joined(query, self._fields)
            undo.pop_all()
        return received, parameters

    def _discard(self) -> None:
        if self._file is not None:
            self._file.discard()

    def _begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > HEADER_LIMIT_BYTES:
            raise Invalid("A part of the multipart body has a header that is too long.", "multipart_malformed")

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            self._text = bytearray()
            return
        self._text = None
        if self._name != self._receiver.field:
            raise Invalid(
                f"The file is sent under the name `{self._receiver.field}`; got `{self._name}`.", "field_unknown"
            )
        if self._file is not None:
            raise Invalid(f"Send one file as `{self._receiver.field}`; got more.", "conflicting_parameters")
        self._file = _File(self._receiver, options[b"filename"].decode("utf-8", "replace")[:255])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            assert self._file is not None
            self._file.take(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > FIELD_LIMIT_BYTES:
            raise TooLarge(f"`{self._name}` must be at most {FIELD_LIMIT_BYTES} bytes.", "field_too_large")

    def _end(self) -> None:
        if self._text is None:
            return
        if self._name in self._fields or len(self._fields) >= FIELDS_MAX:
            raise Invalid(f"The form field `{self._name}` is one too many; give each once.", "conflicting_parameters")
        self._fields[self._name] = self._text.decode("utf-8", "replace")

    def _complete(self) -> None:
        self._is_complete = True


@contextmanager
def consumed(folder: Path, described: dict[str, Any]) -> Iterator[Path]:
    """The uploaded file of a job; deleted afterwards, unless the job will be run again. Raises NotFound."""
    path = folder / described["name"]
    if not path.is_file():
        raise NotFound("The uploaded file is no longer there; send it again.", "upload_gone")
    is_done = True
    try:
        yield path
    except (Stopping, LeaseLost, OperationalError, NoConnection):
        is_done = False
        raise
    finally:
        if is_done:
            path.unlink(missing_ok=True)


def sweep(folder: Path, named: Collection[str]) -> None:
    """Delete what was left over: files that are not named and are older than an hour."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in named and path.is_file() and time.time() - path.stat().st_mtime > LEFT_OVER_S:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or deleted in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _json(request: Request) -> dict[str, Any]:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > FIELD_LIMIT_BYTES:
            raise TooLarge(f"The JSON body must be at most {FIELD_LIMIT_BYTES} bytes.", "body_too_large")
    if not raw.strip():
        return {}
    try:
        document = plain_json(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The body must be JSON; {error}.", "json_malformed") from error
    if not isinstance(document, dict):
        raise Invalid("The body must be a JSON object.", "json_malformed")
    return document


def _once(items: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in items:
        if name in found:
            raise Invalid(f"`{name}` is given twice in the query; give it once.", "conflicting_parameters")
        found[name] = value
    return found


def _joined(query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    for name in query:
        if name in body:
            raise Invalid(
                f"`{name}` is given twice, in the query and in the body; give it once.", "conflicting_parameters"
            )
    return {**query, **body}
