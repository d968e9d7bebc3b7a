"""A client of a service: a running one, or one opened on a data folder while a command runs."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from oddity_client import Client, Retries, Unreachable
from oddity_client.transports import headers_of

from app.cli.failures import CommandFailed
from app.cli.in_process import running
from app.settings import CallerSettings, Settings

ANSWER_WITHIN_S = 600.0


@contextmanager
def open_client(server: str | None, data: Path | None) -> Iterator[Client]:
    """A client of the server named, or of the data folder (that of the settings when neither is named).

    Raises CommandFailed when both are named, or nobody answers.
    """
    if server is not None and data is not None:
        raise CommandFailed("Name --server or --data, not both.", 2)
    caller = CallerSettings()
    key = None if caller.api_key is None else caller.api_key.get_secret_value()
    server = server_asked(server, data)
    if server is not None:
        if not server.startswith(("http://", "https://")):
            raise CommandFailed(f"`--server` must begin with http:// or https://; got {server}.", 2)
        _check_answers(server)
        with Client(server, api_key=key, timeout_s=ANSWER_WITHIN_S) as client:
            yield client
        return
    # A command is over too soon for a process beside it.
    # Whoever holds the folder needs no key.
    settings = folder_settings(data).model_copy(update={"jobs": "thread", "access": "open"})
    # Imported here by name, since a client of a running server needs neither torch nor a database.
    application = importlib.import_module("app.main").create_app(settings)
    with (
        running(application) as transport,
        httpx.Client(base_url="http://oddity", headers=headers_of(key), transport=transport) as http,
        Client(f"the data folder {settings.data}", http=http) as client,
    ):
        yield client


def server_asked(server: str | None, data: Path | None) -> str | None:
    """The server named, else that of the settings; None where a data folder is asked instead."""
    return CallerSettings().server if server is None and data is None else server


def folder_settings(data: Path | None) -> Settings:
    """The settings from the environment, on this data folder where one is named."""
    return Settings() if data is None else Settings(data=data)


def _check_answers(server: str) -> None:
    """Where nobody listens at all, say so at once; a connection that breaks later is tried again."""
    with Client(server, timeout_s=ANSWER_WITHIN_S, retries=Retries(tries=1)) as client:
        try:
            client.alive()
        except Unreachable as error:
            raise CommandFailed(
                f"No service answers at {server}. Start one with `oddity serve`, or name a data folder with --data."
            ) from error
