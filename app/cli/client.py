"""Requests to a service: a running one, or one opened on a data folder while a command runs."""

import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from app.cli.failures import CommandFailed, Refused
from app.cli.in_process import running
from app.settings import Settings

ANSWER_WITHIN_S = 600.0
TRIES = 5
LONGEST_PAUSE_S = 30.0


class Client:
    """Requests under `/v1`, with answers as JSON. Momentary refusals (429, 503) are tried again."""

    def __init__(self, http: httpx2.Client, where: str) -> None:
        self._http = http
        self.where = where

    def collection(self, name: str) -> str:
        """The path of a collection."""
        return f"/v1/collections/{quote(name, safe='')}"

    def exists(self, path: str) -> bool:
        """Whether GET answers. Raises Refused for anything but 404."""
        try:
            self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET."""
        return self._send("GET", path, params=query)

    def put(self, path: str, body: Any) -> Any:
        """The answer to a PUT of JSON."""
        return self._send("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """The answer to a PATCH with JSON."""
        return self._send("PATCH", path, json=body)

    def post(self, path: str, body: Any) -> Any:
        """The answer to a POST of JSON."""
        return self._send("POST", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE, with no answer."""
        self._send("DELETE", path)

    def post_files(self, path: str, files: Sequence[tuple[str, bytes]], fields: dict[str, str]) -> Any:
        """The answer to a multipart POST of named files with form fields."""
        return self._send("POST", path, files=_parts(files), data=fields)

    def put_files(self, path: str, files: Sequence[tuple[str, bytes]], fields: dict[str, str]) -> Any:
        """The answer to a multipart PUT of named files with form fields."""
        return self._send("PUT", path, files=_parts(files), data=fields)

    def _send(self, method: str, path: str, **content: Any) -> Any:
        # Every request of the command line may be repeated: writes name their images by contents.
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._http.request(method, path, **content)
            except httpx2.ConnectError as error:
                raise CommandFailed(
                    f"No service answers at {self.where}. Start one with `oddity serve`, "
                    "or name a data folder with --data."
                ) from error
            except httpx2.TransportError as error:
                if attempt == TRIES:
                    raise CommandFailed(f"The connection to {self.where} failed: {error!r}.") from error
                time.sleep(min(2.0**attempt, LONGEST_PAUSE_S))
                continue
            if answer.status_code not in (429, 503) or attempt == TRIES:
                return _content(answer, self.where)
            time.sleep(_pause_s(answer))
        raise AssertionError("unreachable")


def _parts(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (name, data, "application/octet-stream")) for name, data in files]


def _pause_s(answer: httpx2.Response) -> float:
    given = answer.headers.get("retry-after", "1")
    return min(float(given), LONGEST_PAUSE_S) if given.isdigit() else 1.0


def _content(answer: httpx2.Response, where: str) -> Any:
    if answer.status_code == 204:
        return None
    try:
        content = answer.json()
    except ValueError as error:
        raise CommandFailed(f"{where} does not answer like Oddity (status {answer.status_code}, no JSON).") from error
    if answer.is_success:
        return content
    told = content if isinstance(content, dict) else {}
    detail = str(told.get("detail", f"The service answered with status {answer.status_code}."))
    raise Refused(answer.status_code, str(told.get("code", "unknown")), detail)


@contextmanager
def open_client(server: str | None, data: Path | None) -> Iterator[Client]:
    """A client of the server named, or of the data folder (that of the settings when neither is named).

    Raises CommandFailed when both are named.
    """
    if server is not None and data is not None:
        raise CommandFailed("Name --server or --data, not both.", 2)
    if server is not None:
        if not server.startswith(("http://", "https://")):
            raise CommandFailed(f"`--server` must begin with http:// or https://; got {server}.", 2)
        with httpx2.Client(base_url=server, timeout=ANSWER_WITHIN_S) as http:
            yield Client(http, server)
        return
    # A command is over too soon for a process beside it.
    settings = folder_settings(data).model_copy(update={"jobs": "thread"})
    # Imported here by name, since a client of a running server needs neither torch nor a database.
    application = importlib.import_module("app.main").create_app(settings)
    with (
        running(application) as transport,
        httpx2.Client(base_url="http://oddity", transport=transport) as http,
    ):
        yield Client(http, f"the data folder {settings.data}")


def folder_settings(data: Path | None) -> Settings:
    """The settings from the environment, on this data folder where one is named."""
    return Settings() if data is None else Settings(data=data)
