"""`oddity scores`: the stored images of a collection by score."""

from typing import Annotated

import typer
from rich.table import Column, Table

from app.cli.client import open_client
from app.cli.console import print_json, results, short_number
from app.cli.ingest import Role
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, examples

SCORED_MAX = 2000  # the most that the service scores at once
VERDICTS = {True: "anomalous", False: "normal", None: "none"}

cli = typer.Typer()

ScorerOption = Annotated[str | None, typer.Option(help="Id of a scorer [default: dn2].")]


@cli.command(epilog=examples("oddity scores parts", "oddity scores parts --role unlabelled --top 20"))
def scores(
    collection: CollectionArgument,
    scorer: ScorerOption = None,
    role: Annotated[Role | None, typer.Option(help="Only images of this role [default: all].")] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Of the verdicts [default: the collection's].")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table, the strangest first; JSON has all.")] = 50,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List stored images with their scores, strangest first; an image of the bank is compared with the others.

    Of more than 2,000 images that many are scored: half of them the newest outside the bank, the others drawn from it.
    """
    with open_client(server, data) as client:
        found = client.collection(collection).scores(
            scorer=scorer, role=role, false_alarm_rate=false_alarm_rate, limit=SCORED_MAX
        )
    if as_json:
        print_json(found)
        return
    title = f"{collection}: {len(found.images)} of {found.stored} scored by {found.scorer}"
    table = Table(Column("image", overflow="fold"), "score", "p-value", "verdict", "role", "label", title=title)
    for one in found.images[:top]:
        table.add_row(
            one.id,
            short_number(one.score),
            "" if one.p_value is None else f"{one.p_value:.4f}",
            VERDICTS[one.anomalous],
            one.role,
            one.label or "",
        )
    results().print(table)
