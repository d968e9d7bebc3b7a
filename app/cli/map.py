"""`oddity map`: the stored images of a collection on a plane."""

import csv
import sys
from typing import Annotated, Literal

import typer

from app.cli.client import open_client
from app.cli.console import print_json
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, examples
from app.cli.scores import SCORED_MAX, ScorerOption

COLUMNS = ("id", "x", "y", "score", "p_value", "role", "label")

cli = typer.Typer()


@cli.command(name="map", epilog=examples("oddity map parts > map.csv", "oddity map parts --layout neighbours --json"))
def show_map(
    collection: CollectionArgument,
    layout: Annotated[
        Literal["principal", "neighbours"],
        typer.Option(help="The two widest directions; or t-SNE, which keeps neighbours together and takes seconds."),
    ] = "principal",
    scorer: ScorerOption = None,
    limit: Annotated[
        int, typer.Option(min=1, max=SCORED_MAX, help="Most images; of more, that many are drawn.")
    ] = SCORED_MAX,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write where stored images lie on a plane (-1 to 1), with their scores, as CSV: what lies near what."""
    with open_client(server, data) as client:
        found = client.collection(collection).map(layout=layout, scorer=scorer, limit=limit)
    if as_json:
        print_json(found)
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    writer.writerows([[getattr(one, name) for name in COLUMNS] for one in found.images])
