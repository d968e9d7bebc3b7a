"""`oddity audit`: who wrote what, and what keys were used for."""

import json
from typing import Annotated

import typer

from app.access.audit import Audit
from app.cli.client import folder_settings
from app.cli.options import DataOption, examples

cli = typer.Typer()


@cli.command(epilog=examples("oddity audit --last 200"))
def audit(
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many entries, the newest.")] = 50,
    data: DataOption = None,
) -> None:
    """Print the newest entries of the audit log, oldest first, one JSON object a line."""
    settings = folder_settings(data)
    log = Audit(settings.data / "audit", settings.audit_limit_bytes, settings.audit_limit_files)
    for entry in reversed(log.page(None, last)[0]):
        print(json.dumps(entry, ensure_ascii=False))
