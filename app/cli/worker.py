"""`oddity worker`: a process that runs jobs."""

import sys
from io import FileIO
from typing import Annotated

import typer

from app.cli.client import folder_settings
from app.cli.options import DataOption, examples
from app.kept_process import handed_settings
from app.observe import log_to_stderr
from app.worker import work

cli = typer.Typer()


@cli.command(epilog=examples("oddity worker --data /srv/oddity"))
def worker(
    data: DataOption = None,
    beside_server: Annotated[
        bool, typer.Option("--beside-server", hidden=True, help="Settings and wakes come over standard input.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port at which Prometheus may ask for metrics; unset: none.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of that port; 0.0.0.0 for all.")] = "127.0.0.1",
) -> None:
    """Run jobs until Ctrl-C; several may run, on one machine or many that share record and image store.

    A server starts one by itself unless ODDITY_JOBS says otherwise.
    """
    orders = FileIO(sys.stdin.fileno(), closefd=False) if beside_server else None
    settings = folder_settings(data) if orders is None else handed_settings(orders)
    if settings is not None:
        log_to_stderr(settings.log_level, settings.log_format)
        work(settings, orders, None if metrics_port is None else (metrics_host, metrics_port))
