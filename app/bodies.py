"""One reader for the three kinds of body: multipart files, one raw image, JSON with base64 or ids.

Bytes are counted while they arrive, before anything is parsed, here and wherever else a body is read. Parameters may
be form fields or query strings; a parameter given differently in both is refused.
"""

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Busy, Invalid, TooLarge, UnsupportedMedia, faults_of
from app.settings import Settings

FIELD_LIMIT_BYTES = 8 * 2**20  # one form field: `items` or `filter`
DEPTH_LIMIT = 64  # of JSON: well within what any reader of the answers takes
BEFORE_VALUES = (b",", b"[", b"{")  # no value of JSON but the first comes without one of them before it
VALUE_BYTES = 72  # an empty object in a list, the most that two bytes of JSON can become
AT_ONCE_BYTES = 2**16  # of JSON: more is parsed in a thread, while other requests go on
Parameters = TypeVar("Parameters", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it came: its bytes and the file name the client gave."""

    data: bytes
    filename: str | None = None
    item: dict[str, Any] = field(default_factory=dict)  # id, metadata, label, group… that came with it


@dataclass(frozen=True, slots=True)
class Body:
    """What a request brought: images in order, and everything else as parameters."""

    uploads: list[Upload]
    parameters: dict[str, Any]

    def digest(self) -> str:
        """A hash of what was sent, the same when a client repeats a request with another multipart boundary."""
        parts = [[hashlib.sha256(upload.data).hexdigest(), upload.filename, upload.item] for upload in self.uploads]
        return hashlib.sha256(json.dumps([parts, self.parameters], sort_keys=True).encode()).hexdigest()


async def read_body(request: Request, settings: Settings) -> Body:
    """Read and dispatch on the content type. Raises TooLarge, UnsupportedMedia, Invalid."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = _query(request.query_params)
    if kind == "multipart/form-data":
        uploads, fields = await _multipart(request, settings)
        for name, value in fields.items():
            if name in query and query[name] != value:
                raise Invalid(
                    f"`{name}` is given twice, in the query and in the form; give it once.", "conflicting_parameters"
                )
        return Body(uploads, {**query, **fields})
    raw = await request.body()  # counted by `BodyLimit`
    if kind.startswith("image/") or kind == "application/octet-stream":
        if not raw:
            raise Invalid("The body is empty; send the bytes of one image.", "body_empty")
        return Body([Upload(raw)], query)
    if _is_json(kind):
        if len(raw) > AT_ONCE_BYTES:
            uploads, fields = await anyio.to_thread.run_sync(_json, raw, settings)
        else:
            uploads, fields = _json(raw, settings)
        for name, value in fields.items():
            if name in query and not _same(query[name], value):
                raise Invalid(
                    f"`{name}` is given twice, in the query and in the body; give it once.", "conflicting_parameters"
                )
        return Body(uploads, {**query, **fields})
    raise UnsupportedMedia(
        f"Content type `{kind}` is not read here; send multipart/form-data with `files`, one image/* body, or JSON "
        "with `images` (base64) or `ids`."
    )


def parse(model: type[Parameters], values: dict[str, Any]) -> Parameters:
    """The parameters as the model wants them. Raises Invalid with the first fault as a sentence."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = faults_of(error.errors())
        first = faults[0]
        what = "is not a parameter of this path" if error.errors()[0]["type"] == "extra_forbidden" else first["what"]
        raise Invalid(f"`{first['where']}`: {what}.", errors=faults) from error


def refuse_large(metadata: Any, limit_bytes: int) -> None:
    """Raise TooLarge where metadata takes more bytes as JSON than a limit."""
    size = len(json.dumps(metadata))
    if size > limit_bytes:
        detail = f"`metadata` must be at most {limit_bytes} bytes as JSON; got {size}."
        raise TooLarge(detail, "metadata_too_large")


def json_parameter(value: Any) -> Any:
    """A parameter that is JSON: as text in a form or query, as it is in a JSON body. For `BeforeValidator`."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"must be JSON; {error}") from error
    return plain_json(value)


def plain_json(value: Any) -> Any:
    """The value, unchanged, if it can be stored and sent again as JSON. For validators.

    Python reads more than JSON allows: NaN, infinity (also as 1e999) and halves of surrogate pairs, none of which can
    be sent back. Raises ValueError with a sentence.
    """
    level = [value]
    for _ in range(DEPTH_LIMIT):
        level = list(_within(level))
        if not level:
            return value
    raise ValueError(f"must be nested at most {DEPTH_LIMIT} deep")


def _within(values: Iterable[Any]) -> Iterable[Any]:
    """What the lists and objects among these values hold, after a look at the values themselves."""
    for value in values:
        if isinstance(value, dict):
            yield from value
            yield from value.values()
        elif isinstance(value, list):
            yield from value
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must hold finite numbers; JSON knows no others")
        elif isinstance(value, str) and not value.isascii() and not _is_text(value):
            raise ValueError("must hold text; got half of a surrogate pair")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class BodyLimit:
    """ASGI middleware: counts the bytes of a body while they arrive, whatever length was announced.

    It raises where the body is read, so that the answer has the shape of every error: TooLarge where one body is over
    `limit_bytes`, Busy where it does not fit beside those of the requests in flight, which together may hold
    `budget_bytes`. A body counts from its announcement, before a byte of it is read, to the end of its request.
    JSON of more than `limit_values` values is TooLarge as well, and each counts for what it may take once it is parsed.
    POST to paths that match `apart` is left alone: what they receive goes to a file, and they count for themselves.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_bytes: int,
        budget_bytes: int,
        limit_values: int,
        apart: re.Pattern[str] | None = None,
    ) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.limit_values = limit_values
        # One body alone always fits.
        self.budget_bytes = max(budget_bytes, limit_bytes + limit_values * VALUE_BYTES)
        self.apart = apart
        self.held_bytes = 0  # of all requests in flight; only the event loop touches it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or self._is_apart(scope):
            await self.app(scope, receive, send)
            return
        header = _first(scope, b"content-length")
        announced = int(header) if header.isdigit() else 0
        is_json = _is_json(_first(scope, b"content-type").partition(b";")[0].strip().lower().decode("latin-1"))
        size = held = values = 0

        def hold(wanted: int) -> None:
            nonlocal held
            if wanted > held:
                if self.held_bytes + wanted - held > self.budget_bytes:
                    raise Busy("The bodies of other requests fill the memory set aside for them; try again shortly.")
                self.held_bytes += wanted - held
                held = wanted

        async def counted() -> Message:
            nonlocal size, values
            if announced > self.limit_bytes:
                raise self._too_large(str(announced))
            hold(announced)
            message = await receive()
            body = message.get("body", b"")
            size += len(body)
            if size > self.limit_bytes:
                raise self._too_large("more")
            if is_json:
                values += sum(map(body.count, BEFORE_VALUES))
                if values > self.limit_values:
                    raise TooLarge(
                        f"A JSON body must hold at most {self.limit_values} values; got more. Send fewer at a time.",
                        "json_too_many_values",
                    )
            hold(size + values * VALUE_BYTES)
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held_bytes -= held

    def _is_apart(self, scope: Scope) -> bool:
        return scope["method"] == "POST" and self.apart is not None and bool(self.apart.fullmatch(scope["path"]))

    def _too_large(self, got: str) -> TooLarge:
        return TooLarge(
            f"The body must be at most {self.limit_bytes} bytes; got {got}. Send fewer images at a time.",
            "body_too_large",
        )


def _first(scope: Scope, name: bytes) -> bytes:
    """A header as the readers of bodies see it: of several of one name the first."""
    value: bytes = next((value for found, value in scope["headers"] if found == name), b"")
    return value


def _is_json(kind: str) -> bool:
    """Whether a body of this content type is read as JSON; one of none is."""
    return kind in ("application/json", "") or kind.endswith("+json")


def _query(given: QueryParams) -> dict[str, Any]:
    query: dict[str, Any] = {}
    for name, value in given.multi_items():
        if name in query:
            raise Invalid(f"`{name}` is given twice in the query; give it once.", "conflicting_parameters")
        query[name] = value
    return query


def _same(text: str, value: Any) -> bool:
    """Whether a query string says what a JSON body says."""
    if isinstance(value, str):
        return text == value
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


class _Parts(MultiPartParser):
    """Parts of a form as they arrive, in memory alone: no image is written to a temporary folder.

    The whole body is never held beside its parts, so that a form takes little more than what `BodyLimit` counts.
    """

    spool_max_size = 0  # no limit


async def _multipart(request: Request, settings: Settings) -> tuple[list[Upload], dict[str, str]]:
    uploads: list[Upload] = []
    fields: dict[str, str] = {}
    try:
        async with aclosing(request.stream()) as arriving:
            form = await _Parts(
                request.headers,
                arriving,
                max_files=settings.files_limit,
                max_fields=64,
                max_part_size=FIELD_LIMIT_BYTES,
            ).parse()
    except MultiPartException as error:  # starlette's word for malformed or too many parts
        raise Invalid(f"The multipart body cannot be read: {error.message}", "multipart_malformed") from error
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in ("files", "file", "files[]"):
                    raise Invalid(f"Files are sent under the name `files`; got `{name}`.", "field_unknown")
                uploads.append(Upload(await value.read(), value.filename))
                await value.close()  # at once: only one image at a time is held twice
            elif name in fields:
                raise Invalid(f"The form field `{name}` is given twice; give it once.", "conflicting_parameters")
            else:
                fields[name] = value
    finally:
        await form.close()
    return uploads, fields


def _json(raw: bytes, settings: Settings) -> tuple[list[Upload], dict[str, Any]]:
    if not raw.strip():
        return [], {}
    try:
        document = plain_json(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The body must be JSON; {error}.", "json_malformed") from error
    if not isinstance(document, dict):
        raise Invalid("The body must be a JSON object.", "json_malformed")
    images = document.pop("images", [])
    if not isinstance(images, list):
        raise Invalid("`images` must be a list of base64 strings or objects with `content`.", "json_malformed")
    if len(images) > settings.files_limit:
        raise TooLarge(f"`images` must hold at most {settings.files_limit}; got {len(images)}.", "too_many_files")
    return [_json_image(image, place) for place, image in enumerate(images)], document


def _json_image(image: Any, place: int) -> Upload:
    item = {"content": image} if isinstance(image, str) else dict(image) if isinstance(image, dict) else {}
    content = item.pop("content", None)
    if not isinstance(content, str):
        raise Invalid(f"`images.{place}.content` must be a base64 string.", "json_malformed")
    if content.startswith("data:"):
        content = content.partition(",")[2]
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"`images.{place}.content` must be base64; {error}.", "base64_malformed") from error
    filename = item.pop("filename", None)
    return Upload(data, filename if isinstance(filename, str) else None, item)
