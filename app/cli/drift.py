"""`oddity drift`: whether images that were scored are still like the normal ones."""

from typing import Annotated, Literal

import typer

from app.cli.client import open_client
from app.cli.console import print_json
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, examples
from app.cli.waiting import say

DIRECTIONS = {"stranger": "stranger than the normal ones", "more_alike": "more alike than the normal ones"}

cli = typer.Typer()


@cli.command(epilog=examples("oddity drift parts", "oddity drift parts --hours 72 --against before --json"))
def drift(
    collection: CollectionArgument,
    hours: Annotated[int | None, typer.Option(min=1, help="How far back to look [default: a day].")] = None,
    against: Annotated[
        Literal["calibration", "before"],
        typer.Option(help="What to compare with: the calibration images, or as many hours right before."),
    ] = "calibration",
    scorer: Annotated[str | None, typer.Option(help="Id of a scorer [default: dn2].")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether the images that were sent to be scored are still like the normal ones."""
    with open_client(server, data) as client:
        told = client.collection(collection).drift(hours=hours, against=against, scorer=scorer)
    if as_json:
        print_json(told)
    elif told.drifted is None or told.p_value is None:
        say(f"{collection}: {told.n} images were scored, too few to tell ({told.n_needed} are needed).")
    else:
        what = DIRECTIONS[told.direction or "stranger"] if told.drifted else "like the normal ones"
        say(f"{collection}: the {told.n} images that were scored are {what} (p-value {told.p_value:.4f}).")
