"""`oddity collect`: what nobody needs any more, all at once."""

import dataclasses
from typing import Annotated

import typer

from app.cli.client import folder_settings
from app.cli.console import messages, print_json
from app.cli.options import DataOption, JsonOption, examples
from app.collecting.service import STARTS, Collected, collect_files, prune
from app.main import close_core, open_core

cli = typer.Typer()


@cli.command(epilog=examples("oddity collect --dry-run"))
def collect(
    data: DataOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete image files that no image has named for an hour, and notes that are no longer needed.

    Safe beside running servers. Nothing is taken while a restore runs.
    """
    core = open_core(folder_settings(data))
    try:
        found = sum((collect_files(core, start, is_dry=dry_run) for start in STARTS), prune(core, is_dry=dry_run))
    finally:
        close_core(core)
    if as_json:
        print_json({"dry_run": dry_run, **dataclasses.asdict(found)})
        return
    done = "Would delete" if dry_run else "Deleted"
    messages().print(f"{done} {_told(found)}.")


def _told(found: Collected) -> str:
    return (
        f"{found.images} image files, {found.thumbnails} thumbnails, {found.unfinished} unfinished files, "
        f"{found.deletions} notes of deletions, {found.answers} kept answers, {found.jobs} ended jobs"
    )
