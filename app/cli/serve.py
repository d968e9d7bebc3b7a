"""`oddity serve`: the service in one process."""

import socket
from typing import Annotated

import httpx
import typer
import uvicorn
from fastapi import FastAPI

from app.cli.client import folder_settings
from app.cli.console import messages
from app.cli.options import DataOption
from app.main import create_app
from app.settings import Settings

SHUTDOWN_S = 30

cli = typer.Typer()


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    data: DataOption = None,
) -> None:
    """Run the service until Ctrl-C. The record is migrated and the data folder made when needed."""
    settings = folder_settings(data)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    AnnouncedServer(config, app, settings).run()


class AnnouncedServer(uvicorn.Server):
    """uvicorn, saying where the page is once it listens."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets=sockets)
        if not self.started:
            return
        port = self.servers[0].sockets[0].getsockname()[1]
        host = self.config.host if self.config.host not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        messages().print(
            f"Oddity serves {self._settings.data.resolve()} at {url}/ (interface: {url}/docs)", soft_wrap=True
        )
        if await self._is_empty():
            messages().print(
                f"There is no collection yet. In another terminal, try: oddity demo --server {url}",
                soft_wrap=True,
            )

    async def _is_empty(self) -> bool:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://oddity") as http:
            answer = await http.get("/v1/collections", params={"limit": 1})
        return answer.is_success and not answer.json()["collections"]
