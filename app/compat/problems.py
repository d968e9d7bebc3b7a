"""Errors on the paths of another service, in the shapes that its clients know.

Whatever refuses a request there (a missing key, a body too large, a full line) has answered with problem+json; here it
is told again as that service would have told it.
"""

import json
import re
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import MEDIA_TYPE
from app.observe import current_id

PREFIX = "/compat/lookoutvision/"
DETECT = re.compile(re.escape(PREFIX) + r"2020-11-20/projects/([^/]+)/models/([^/]+)/detect")
OF_MODELS = frozenset({"scorer_unknown", "scorer_not_fitted", "stale_embedding"})


class LookoutProblems:
    """ASGI layer: on that service's paths, problems leave as its exceptions, and answers carry its request id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def translated(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-amzn-requestid", current_id().encode())]
                start = {**message, "headers": headers}
                if not _is_problem(headers):
                    await send(start)
                    start = None
            elif start is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await _send_exception(start, json.loads(body), scope["path"], send)

        await self.app(scope, receive, translated)


def exception_of(status: int) -> tuple[str, int]:
    """The exception of that service that says what a status of ours says, and its status there."""
    if status in (401, 403):
        return "AccessDeniedException", 403
    if status == 404:
        return "ResourceNotFoundException", 404
    if status == 409:
        return "ConflictException", 409
    if status in (429, 503):
        return "ThrottlingException", 429
    return ("InternalServerException", 500) if status >= 500 else ("ValidationException", 400)


async def _send_exception(start: Message, problem: dict[str, Any], path: str, send: Send) -> None:
    name, status = exception_of(problem["status"])
    told: dict[str, Any] = {"Message": problem["detail"]}
    if name in ("ResourceNotFoundException", "ConflictException"):
        told.update(_resource(path, problem["code"]))
    content = json.dumps(told).encode("ascii")
    kept = [(key, value) for key, value in start["headers"] if key not in (b"content-length", b"content-type")]
    headers = [
        *kept,
        (b"content-type", b"application/x-amz-json-1.1"),
        (b"content-length", str(len(content)).encode()),
        (b"x-amzn-errortype", name.encode()),
    ]
    await send({**start, "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _resource(path: str, code: str) -> dict[str, str]:
    found = DETECT.fullmatch(path)
    project, version = (unquote(found[1]), unquote(found[2])) if found else ("", "")
    if code in OF_MODELS:
        return {"ResourceId": f"{project}/{version}", "ResourceType": "MODEL"}
    return {"ResourceId": project, "ResourceType": "PROJECT"}


def _is_problem(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(key.lower() == b"content-type" and value.startswith(MEDIA_TYPE.encode()) for key, value in headers)
