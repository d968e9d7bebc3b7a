"""`oddity scorers`: the methods that are installed, or the scorers of a collection, and an end to one of these."""

from collections.abc import Sequence
from typing import Annotated

import typer
from oddity_client import Answer, Method, Scorer
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, JsonOption, ServerOption, examples
from app.cli.waiting import say

cli = typer.Typer()


@cli.command(epilog=examples("oddity scorers", "oddity scorers parts", "oddity scorers parts --delete mine"))
def scorers(
    collection: Annotated[str | None, typer.Argument(help="Name of a collection [default: list the methods].")] = None,
    delete: Annotated[
        str | None, typer.Option("--delete", metavar="ID", help="Delete this scorer with what it learnt.")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods, or the scorers of a collection with their state and how stale they are; or delete one."""
    if delete is not None:
        if collection is None:
            raise CommandFailed("Name the collection of the scorer that is to be deleted.", 2)
        with open_client(server, data) as client:
            client.collection(collection).delete_scorer(delete)
        say(f"{collection}: scorer {delete} is deleted.")
        return
    with open_client(server, data) as client:
        found: Sequence[Answer]
        if collection is None:
            methods = client.methods()
            found, table = methods, _methods(methods)
        else:
            fitted = client.collection(collection).scorers()
            found, table = fitted, _fitted(fitted)
    if as_json:
        print_json(found)
    else:
        results().print(table)


def _methods(found: list[Method]) -> Table:
    table = Table("id", "gives", "needs", "what")
    for one in found:
        needs = ", ".join(one.needs["required"] + [f"or {need}" for need in one.needs["either"]])
        gives = ", ".join(one.gives["outputs"])
        table.add_row(one.id, gives, "nothing to fit" if one.live else needs, one.sentence)
    return table


def _fitted(found: list[Scorer]) -> Table:
    table = Table("id", "method", "state", "images", "calibration", "came since", "left since", "bytes")
    for one in found:
        fit = one.fit
        if one.live:
            facts = ["follows the collection"] + [""] * 4
        elif fit is None:
            facts = [""] * 5
        else:
            numbers = (fit.images, fit.calibration["n"], fit.stale["added"], fit.stale["removed"], fit.bytes)
            facts = [str(number) for number in numbers]
        table.add_row(one.id, one.method, one.state, *facts)
    return table
