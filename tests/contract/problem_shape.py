"""What every error answer must look like."""

import http
from typing import Any
from urllib.parse import unquote

from httpx2 import Response

FIELDS = {"type", "title", "status", "detail", "instance", "code"}


def problem_of(answer: Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The body of an error answer, after a look at every promise about its shape."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json", answer.headers
    body: dict[str, Any] = answer.json()
    assert body.keys() >= FIELDS, body
    assert body["status"] == status
    assert body["title"] == http.HTTPStatus(status).phrase
    assert body["type"] == f"urn:oddity:problem:{body['code']}"
    assert all(isinstance(body[field], str) and body[field] for field in FIELDS - {"status"}), body
    asked = answer.request.url.raw_path.decode().partition("?")[0]
    assert unquote(body["instance"]) == unquote(asked) and body["instance"].isascii(), body
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    if code is not None:
        assert body["code"] == code, body
    return body
