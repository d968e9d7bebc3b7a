"""`oddity search`: the images most like one image."""

from pathlib import Path
from typing import Annotated

import typer
from oddity_client import ItemProblem
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results, short_number
from app.cli.failures import CommandFailed
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, examples

cli = typer.Typer()


@cli.command(epilog=examples("oddity search new.jpg -c parts", "oddity search new.jpg -c parts -k 20 --json"))
def search(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, readable=True, help="An image file.")
    ],
    collection: CollectionOption,
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="How many images.")] = 10,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the images of a collection that look most like this one, nearest first."""
    with open_client(server, data) as client:
        answer = client.collection(collection).query([image], k=k)
    found = answer.results[0]
    if isinstance(found, ItemProblem):
        raise CommandFailed(f"{image}: {found.problem.detail}")
    if as_json:
        print_json(answer)
        return
    table = Table(title=f"Nearest to {image.name} in {collection} ({answer.metric})")
    table.add_column("distance", justify="right", no_wrap=True)
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("id", overflow="fold", ratio=2)
    for one in found:
        table.add_row(short_number(one.distance), str(one.metadata.get("filename", "")), one.id)
    results().print(table)
