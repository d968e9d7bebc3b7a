"""`oddity serve`: the service, with a worker process beside it, in one process or several that share the address."""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from functools import partial
from io import FileIO
from ipaddress import ip_address
from typing import Annotated

import httpx2
import typer
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from app.access.keyring import Keyring
from app.cli.client import folder_settings
from app.cli.console import messages
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, called, examples
from app.clock import utc_now
from app.connections import protocol
from app.db.engine import Database
from app.kept_process import handed_settings, obey
from app.observe import log_to_stderr
from app.server_processes import ServerProcesses
from app.settings import Settings
from models.garbage import made_to_stay, search_seldom

SETTLE_S = 0.25  # from the last connection taken to the first one closed

cli = typer.Typer()


@cli.command(epilog=examples("oddity serve", "oddity serve --port 9000 --data /srv/oddity"))
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    data: DataOption = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Server processes that share the address; ODDITY_PROCESSES, or 1."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let anybody who reaches this address do everything, without a key.")
    ] = False,
    shared: Annotated[int | None, typer.Option("--socket", hidden=True, help="One process of several.")] = None,
    announce: Annotated[bool, typer.Option("--announce", hidden=True, help="Say where the page is.")] = False,
) -> None:
    """Run the service until Ctrl-C or SIGTERM. The record is migrated and the data folder made when needed.

    At the end everything accepted is answered and running jobs go back into the queue, within ODDITY_SHUTDOWN_S.
    Beyond this machine's own address it asks for API keys: see `oddity keys create --help`.
    """
    if shared is not None:
        _serve_beside_others(shared, is_announced=announce)
        return
    settings = settings_for(host, folder_settings(data), insecure=insecure)
    if processes is not None:
        settings = settings.model_copy(update={"processes": processes})
    log_to_stderr(settings.log_level, settings.log_format)
    logging.getLogger("oddity").info("settings", extra={"facts": settings.model_dump(mode="json")})
    if settings.processes == 1:
        _run(announced_server(settings, host, port))
        return
    several = ServerProcesses(settings, _listening(host, port))
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, several.end)
    sys.exit(several.run())


def _serve_beside_others(descriptor: int, *, is_announced: bool) -> None:
    """One of several processes: the settings come over standard input, the socket is open."""
    orders = FileIO(sys.stdin.fileno(), closefd=False)
    settings = handed_settings(orders)
    if settings is None:
        return
    log_to_stderr(settings.log_level, settings.log_format)
    listening = socket.socket(fileno=descriptor)
    host, port = listening.getsockname()[:2]
    server = announced_server(settings, host, port, is_announced=is_announced)
    obey(orders, lambda: None, partial(os.kill, os.getpid(), signal.SIGTERM))
    _run(server, [listening])


def _run(server: "AnnouncedServer", sockets: list[socket.socket] | None = None) -> None:
    # The web server raises the signal again when it has ended well: that is a success.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.run(sockets)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is bound to the address. Raises CommandFailed where it cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise CommandFailed(f"Oddity cannot listen at {host}, port {port}: {error.strerror or error}.") from error


def settings_for(host: str, settings: Settings, *, insecure: bool = False) -> Settings:
    """The settings, with who may send requests decided. Raises CommandFailed where nobody could be let in."""
    if insecure:
        return settings.model_copy(update={"access": "open"})
    if settings.access == "open" or (settings.access == "auto" and _is_loopback(host)):
        return settings
    database = Database(settings.database, settings.database_busy_s)
    try:
        database.migrate()
        has_keys = settings.admin_key is not None or Keyring(database, utc_now).has_keys()
    except SQLAlchemyError as error:
        raise CommandFailed(f"The record cannot be used: {error}") from error
    finally:
        database.close()
    if not has_keys:
        raise CommandFailed(
            f"Others would reach the service at {host}, and there is no API key yet. Make the first one with "
            "`oddity keys create NAME --scope admin`, or set ODDITY_ADMIN_KEY. If anybody who reaches that address may "
            "do everything, say so: --insecure, or ODDITY_ACCESS=open.",
            2,
        )
    return settings.model_copy(update={"access": "keys"})


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name may stand for several."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104
    except OSError:
        return False  # uvicorn will say that there is no such address
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def announced_server(settings: Settings, host: str, port: int, *, is_announced: bool = True) -> "AnnouncedServer":
    """A server of this data folder, ready to run; it says where its page is unless it is not to be announced."""
    with made_to_stay():
        from app.main import create_app  # rule-skip: import-in-function the parent of several processes does without it

        app = create_app(settings)
    # Requests are logged by the application itself.
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol(settings),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        log_config=None,  # ours
        timeout_graceful_shutdown=math.ceil(settings.shutdown_s),
    )
    return AnnouncedServer(config, app, settings, is_announced=is_announced)


class AnnouncedServer(uvicorn.Server):
    """uvicorn, saying where the page is once it listens."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings, *, is_announced: bool = True) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._says_so = is_announced
        self.is_announced = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        with made_to_stay():
            await super().startup(sockets=sockets)
        search_seldom()
        if not self.started:
            return
        self._app.state.checks.run(wait_s=0)  # loads the network, which takes seconds, before a request needs it
        if not self._says_so:
            return
        port = self.servers[0].sockets[0].getsockname()[1]
        host = self.config.host if self.config.host not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        messages().print(
            f"Oddity serves {self._settings.data.resolve()} at {url}/ (interface: {url}/docs)", soft_wrap=True
        )
        if self._settings.access == "keys":
            messages().print("It asks for an API key; see `oddity keys`.")
        elif await self._is_empty():
            messages().print(
                f"There is no collection yet. In another terminal, try: {called()} demo --server {url}",
                soft_wrap=True,
            )
        self.is_announced = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Hand jobs back, go on for as long as a load balancer needs, then answer what was accepted and end."""
        self._app.state.end_soon()
        await asyncio.sleep(self._settings.drain_s)
        for server in self.servers:
            server.close()
        await asyncio.sleep(SETTLE_S)  # requests on their way over open connections arrive, and are answered
        await super().shutdown(sockets)

    async def _is_empty(self) -> bool:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(self._app), base_url="http://oddity") as http:
            answer = await http.get("/v1/collections", params={"limit": 1})
        return answer.is_success and not answer.json()["collections"]
