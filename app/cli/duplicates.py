"""`oddity duplicates`: images that are there more than once."""

from enum import Enum
from typing import Annotated, cast

import typer
from oddity_client import JobFailed
from oddity_client import upkeep as client_levels
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, examples
from app.cli.waiting import ended

cli = typer.Typer()


class Level(Enum):
    """How alike images are; told apart, and never mixed."""

    EXACT_BYTES = "exact_bytes"
    EXACT_PIXELS = "exact_pixels"
    NEAR = "near"
    SIMILAR = "similar"


@cli.command(epilog=examples("oddity duplicates catalogue", "oddity duplicates catalogue --level near --level similar"))
def duplicates(
    collection: CollectionArgument,
    level: Annotated[
        list[Level] | None, typer.Option(help="What to look for; repeat it [default: all but similar].")
    ] = None,
    near_distance: Annotated[
        float | None, typer.Option(min=0.0, help="Largest distance of near ones [default: measured on copies].")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find images with the same bytes, the same pixels, near copies and, if asked, similar images."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        levels = None if level is None else cast(list[client_levels.Level], [one.value for one in level])
        job = ended(
            client,
            place.find_duplicates(levels, near_distance=near_distance),
            f"Duplicates in {collection}",
        )
        if job.state != "succeeded":
            raise JobFailed(job)
        found = list(place.duplicates(job.id))
    if as_json:
        print_json({"collection": collection, "result": job.result, "sets": found})
        return
    table = Table("level", "set", "images", title=f"Duplicates in {collection}")
    for one in found:
        names = (f"{image.id[:24]}{'' if image.copies == 1 else f' ({image.copies} times)'}" for image in one.images)
        table.add_row(one.level, str(one.group), ", ".join(names))
    results().print(table)
