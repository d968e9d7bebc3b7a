"""Errors of the service, and the one table from any exception to an HTTP answer.

    ServiceError
    ├── Unauthenticated     401 (WWW-Authenticate)
    ├── Forbidden           403
    ├── NotFound            404
    ├── TooSlow             408
    ├── Conflict            409
    ├── PreconditionFailed  412
    ├── TooLarge            413
    ├── UnsupportedMedia    415
    ├── Invalid             422
    ├── TooMany             429 (Retry-After)
    ├── BytesDamaged        500, and told: nothing else brings it to light
    └── Busy                503 (Retry-After)

Where a disk is full, whatever was being written, the answer is 507.

Every answer that is an error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`,
`instance` and a stable `code`.
"""

import errno
import http
import json
import logging
import sqlite3
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection  # none of the pool's came free in time
from starlette.exceptions import HTTPException

from index import errors as index_errors
from models import errors as models_errors

log = logging.getLogger("oddity")
MEDIA_TYPE = "application/problem+json"


class ServiceError(Exception):
    """An answer other than 2xx; `code` is stable, `detail` is a sentence that says what to do."""

    status = 500
    code = "internal"

    retry_after_s = 1  # told with 429 and 503

    def __init__(self, detail: str, code: str | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.more = more


class Unauthenticated(ServiceError):
    """The request brings no key, or none that is good here."""

    status, code = 401, "key_missing"


class Forbidden(ServiceError):
    """The request's key is good, but not for this."""

    status, code = 403, "forbidden"


class NotFound(ServiceError):
    """The thing named in the path or body does not exist."""

    status, code = 404, "not_found"


class TooSlow(ServiceError):
    """The body does not come."""

    status, code = 408, "body_too_slow"


class Conflict(ServiceError):
    """The request is well-formed but contradicts what is stored."""

    status, code = 409, "conflict"


class PreconditionFailed(ServiceError):
    """If-Match names another revision than the stored one."""

    status, code = 412, "precondition_failed"


class TooLarge(ServiceError):
    """The body or a part of it is over a limit."""

    status, code = 413, "too_large"


class UnsupportedMedia(ServiceError):
    """The content type is none that this path reads."""

    status, code = 415, "unsupported_media_type"


class Invalid(ServiceError):
    """A parameter or the body is malformed or out of range."""

    status, code = 422, "invalid"


class TooMany(ServiceError):
    """The request's key has made all the requests that it may make for now."""

    status, code = 429, "rate_exceeded"

    def __init__(self, detail: str, code: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, code)
        self.retry_after_s = retry_after_s


class BytesDamaged(ServiceError):
    """Stored bytes are no longer those that were sent."""

    status, code = 500, "bytes_damaged"


class Busy(ServiceError):
    """The same request may succeed a little later."""

    status, code = 503, "busy"


# One row for each error of the lower layers: exception -> (status, code). The most derived class wins.
TABLE: dict[type[Exception], tuple[int, str]] = {
    models_errors.ModelsError: (500, "internal"),
    models_errors.ImageUnreadable: (422, "image_unreadable"),
    models_errors.ImageTooLarge: (413, "image_too_large"),
    models_errors.ImageCrashed: (422, "image_crashed"),
    models_errors.ImageTooSlow: (422, "image_too_slow"),
    models_errors.ParameterInvalid: (422, "parameter_invalid"),
    models_errors.SetSizeMismatch: (422, "set_size_mismatch"),
    models_errors.BankTooSmall: (409, "bank_too_small"),
    models_errors.MethodUnknown: (404, "scorer_unknown"),
    models_errors.NothingToCompare: (409, "nothing_to_compare"),
    models_errors.FitRefused: (409, "fit_refused"),
    models_errors.LibraryMissing: (409, "library_missing"),
    models_errors.StateDamaged: (500, "scorer_damaged"),
    models_errors.WeightsMissing: (409, "weights_missing"),
    models_errors.WeightsDamaged: (500, "weights_damaged"),
    models_errors.FingerprintMismatch: (409, "fingerprint_mismatch"),
    models_errors.EngineUnusable: (409, "engine_unusable"),
    models_errors.RuntimeMismatch: (409, "runtime_mismatch"),
    models_errors.QueueFull: (503, "busy"),
    models_errors.DeadlinePassed: (503, "deadline_passed"),
    models_errors.DecoderUnavailable: (503, "decoder_unavailable"),
    index_errors.VectorIndexError: (500, "internal"),
    index_errors.WidthMismatch: (422, "width_mismatch"),
    index_errors.NotFinite: (422, "not_finite"),
    OperationalError: (503, "record_unavailable"),
    NoConnection: (503, "record_unavailable"),
}
MOMENTARY: tuple[type[Exception], ...] = (Busy, OperationalError, NoConnection)  # for those who may ask again soon
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL_SQLSTATES = ("53100",)  # PostgreSQL's disk_full


class ProblemResponse(JSONResponse):
    """Pure ASCII: what a caller sent may be quoted whatever it holds, and the answer can always be written."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """The body as bytes."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def problem(status: int, code: str, detail: str, instance: str, *, retry_after_s: int = 1, **more: Any) -> JSONResponse:
    """The one body shape of all errors."""
    body = {
        "type": f"urn:oddity:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        **more,
    }
    headers = {"Retry-After": str(retry_after_s)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="oddity"'
    return ProblemResponse(body, status_code=status, headers=headers)


def describe(error: Exception) -> tuple[int, str, str]:
    """Status, code and sentence for an exception of any layer; what is ours to fix is not told to the caller."""
    if isinstance(error, ServiceError):
        return error.status, error.code, error.detail
    if is_disk_full(error):
        return 507, "storage_full", "The disk of the service is full; nothing of this request was stored."
    for kind in type(error).__mro__:
        if kind in TABLE:
            status, code = TABLE[kind]
            if code == "record_unavailable":
                return status, code, "The record cannot be reached or is locked at the moment; try again shortly."
            detail = str(error) if status < 500 or status == 503 else "The service failed; its log says why."
            return status, code, detail
    return 500, "internal", "The service failed; its log says why."


def faults_of(errors: Iterable[Any]) -> list[dict[str, str]]:
    """What pydantic found: where, and a sentence each."""
    return [
        {"where": ".".join(map(str, one["loc"])), "what": str(one["msg"]).removeprefix("Value error, ")}
        for one in errors
    ]


def item_problem(error: Exception) -> dict[str, Any]:
    """The `problem` of one item in an answer that goes on without it."""
    status, code, detail = describe(error)
    return {"code": code, "status": status, "detail": detail}


def is_disk_full(error: Exception) -> bool:
    """Whether it is for want of room that something could not be written: a file, or the record."""
    if isinstance(error, DBAPIError):
        cause = error.orig
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", None) in (
            DISK_FULL_SQLSTATES
        )
    return isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS


def install(app: FastAPI) -> None:
    """Register the handlers, so that every error leaves as problem+json."""
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, respond)
    kinds: list[type[Exception]] = [ServiceError, OSError, *TABLE]
    for kind in kinds:
        app.add_exception_handler(kind, respond)


def _instance(request: Request) -> str:
    """The path as a URI reference. `request.url` would lose what an id may hold: `?`, `#`, line ends."""
    return quote(request.scope["path"], safe="/:@!$&'()*+,;=~")


async def respond(request: Request, error: Exception) -> JSONResponse:
    """The answer that an exception of any layer becomes."""
    status, code, detail = describe(error)
    if status >= 500:
        log.log(
            logging.ERROR if status == 500 else logging.WARNING, "%s", code, exc_info=error if status == 500 else None
        )
    if not isinstance(error, ServiceError):
        return problem(status, code, detail, _instance(request))
    return problem(status, code, detail, _instance(request), retry_after_s=error.retry_after_s, **error.more)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = faults_of(error.errors())
    first = errors[0]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if first["where"] == "body" and kind != "application/json" and not kind.endswith("+json"):
        error = UnsupportedMedia(f"Content type `{kind}` is not read here; send application/json.")
        return await respond(request, error)
    detail = f"`{first['where']}`: {first['what']}."
    return problem(422, "invalid", detail, _instance(request), errors=errors)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):  # raised while the framework read the body
        return await respond(request, error.__cause__)
    codes = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.scope['path']}; /docs lists every path."
    if error.status_code == 405:
        detail = f"{request.method} is not offered at {request.scope['path']}; /docs lists every path."
    answer = problem(error.status_code, codes.get(error.status_code, "http_error"), detail, _instance(request))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer
