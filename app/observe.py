"""What a running request tells of itself: an id, one log line at its end, counts, times by stage, and spans if asked.

`observed` says who listens to the work of this thread or task, and `stage` times a part of that work. Where nobody
listens, a stage costs nothing worth measuring.
"""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.monitoring.instruments import Instruments
from app.monitoring.tracing import Tracing

log = logging.getLogger("oddity.requests")
GIVEN_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
PLAIN = re.compile(r"[!#-~]+")  # neither a space, a quotation mark nor a control character
UNKNOWN_ROUTE = "unknown"
CALLER_GONE = 499  # as nginx has it; there is nobody to answer
NOTHING = nullcontext()


@dataclass(slots=True)
class Observing:
    """Who listens to the work of a process."""

    instruments: Instruments
    tracing: Tracing | None = None
    is_ending: bool = False  # answers then close their connection

    @property
    def tracer(self) -> Tracer | None:
        """Makes spans, if somebody wants them."""
        return None if self.tracing is None else self.tracing.tracer

    def close(self) -> None:
        """Send the spans that are left."""
        if self.tracing is not None:
            self.tracing.close()
            self.tracing = None


@dataclass(frozen=True, slots=True)
class Work:
    """The request or job that this thread or task works on."""

    id: str
    observing: Observing


_work: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def observed(observing: Observing, work_id: str) -> Iterator[None]:
    """What is done inside, in this task and in threads begun from it, belongs to this request or job."""
    token = _work.set(Work(work_id, observing))
    try:
        yield
    finally:
        _work.reset(token)


def current_id() -> str:
    """The id of the request or job that is worked on here; empty where there is none."""
    work = _work.get()
    return "" if work is None else work.id


def stage(name: str) -> AbstractContextManager[object]:
    """Time a part of the work under a name; the names are few and fixed."""
    work = _work.get()
    return NOTHING if work is None else _Stage(name, work.observing)


class _Stage:
    """A timed part of the work; every request has a dozen, so that a generator for each would be felt."""

    __slots__ = ("_began", "_name", "_observing", "_span")

    def __init__(self, name: str, observing: Observing) -> None:
        self._name, self._observing = name, observing

    def __enter__(self) -> None:
        tracer = self._observing.tracer
        # Without the exceptions that pass through: their sentences may quote what is not ours to keep.
        self._span = None if tracer is None else tracer.start_as_current_span(self._name, record_exception=False)
        self._began = time.perf_counter()
        if self._span is not None:
            self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        self._observing.instruments.time_stage(self._name, time.perf_counter() - self._began)


class RequestLog:
    """ASGI application around the whole service: ids, counts, spans, and a log line for each request.

    The id is `X-Request-ID`, the caller's if it sent a sane one, and stands in every answer, those of failures too.
    Only method, path, status and time are logged, and the route alone where others keep it: query strings, headers and
    bodies may hold what is not ours to keep.
    """

    def __init__(self, app: ASGIApp, observing: Observing) -> None:
        self.app = app
        self.observing = observing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        instruments = self.observing.instruments
        scope["oddity.request"] = request_id  # for the audit log
        started = time.perf_counter()
        status, is_through = 0, False  # until an answer begins, and until whatever answers has come to its end

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if self.observing.is_ending:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        instruments.in_progress.inc()
        with observed(self.observing, request_id), self._span(scope, request_id) as span:
            try:
                await self.app(scope, receive, send_with_id)
                is_through = True
            finally:
                status = status or (CALLER_GONE if is_through else 500)
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", None) or UNKNOWN_ROUTE
                instruments.in_progress.dec()
                instruments.count_request(scope["method"], route, status, seconds)
                if span is not None:
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attributes({"http.route": route, "http.response.status_code": status})
                    if status >= 500:
                        span.set_status(StatusCode.ERROR)
                facts = {
                    "id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                }
                log.info("request", extra={"facts": facts})

    @contextmanager
    def _span(self, scope: Scope, request_id: str) -> Iterator[Span | None]:
        tracer = self.observing.tracer
        if tracer is None:
            yield None
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = TraceContextTextMapPropagator().extract(headers)
        attributes = {"http.request.method": scope["method"], "oddity.request_id": request_id}
        with tracer.start_as_current_span(
            scope["method"], parent, SpanKind.SERVER, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span


class Lines(logging.Formatter):
    """One record a line: what happened, its facts, and which request or job and trace it belongs to."""

    def __init__(self, *, is_json: bool) -> None:
        super().__init__()
        self._is_json = is_json

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, or as text for people."""
        line: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        work = _work.get()
        if work is not None:
            line["id"] = work.id
            trace_id = get_current_span().get_span_context().trace_id
            if trace_id:
                line["trace_id"] = f"{trace_id:032x}"
        line.update(getattr(record, "facts", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False) if self._is_json else _text(line)


def _text(line: dict[str, object]) -> str:
    head = f"{line.pop('time')} {str(line.pop('level')).upper()} {line.pop('event')}"
    traceback = line.pop("traceback", None)
    facts = " ".join(f"{name}={_word(value)}" for name, value in line.items())
    return "\n".join(str(part) for part in (f"{head} {facts}".rstrip(), traceback) if part)


def _word(value: object) -> str:
    """A value in one word: what a caller sent must not begin a line of its own."""
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def log_to_stderr(level: str, form: str = "json") -> None:
    """Send the log of the service, and what the web server has to say, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(is_json=form == "json"))
    for name, least in (("oddity", level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least)
