"""`oddity clean`: the strangest images are taken out of a bank that may hold strangers, and put back."""

from typing import Annotated

import typer
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer(no_args_is_help=True, help="Take the strangest images out of a bank, and put them back.")


@cli.command(epilog=examples("oddity clean run parts --fraction 0.1", "oddity clean run parts --scorer mine"))
def run(
    collection: CollectionArgument,
    fraction: Annotated[float | None, typer.Option(min=0.0, max=0.5, help="Share of the bank that is dropped.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="In place of a share: a fitted scorer that gives a cleaned bank.")
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, max=512, help="Neighbours averaged [default: as many as it drops].")
    ] = None,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the strangest images out of the bank, by their distance from the rest or as a scorer chose.

    They stay stored, as unlabelled.
    """
    with open_client(server, data) as client:
        job = client.collection(collection).clean(fraction, k=k, scorer=scorer)
        job = finished(client, job, f"Cleaning {collection}", wait=wait, as_json=as_json)
    if job.result is not None and not as_json:
        told = job.result
        say(f"{collection}: {told['dropped']} of {told['scored']} images are taken out of the bank.")
        say(f"`oddity clean undo {collection} {job.id}` puts them back.")


@cli.command("list", epilog=examples("oddity clean list parts"))
def list_cleanings(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the cleanings of a collection."""
    with open_client(server, data) as client:
        found = client.collection(collection).cleanings()
    if as_json:
        print_json(found)
        return
    table = Table("job", "share or scorer", "scored", "taken out", "undone", title=f"Cleanings of {collection}")
    for one in found:
        how, undone = one.scorer or str(one.fraction), "yes" if one.undone else "no"
        table.add_row(one.job, how, str(one.scored), str(one.dropped), undone)
    results().print(table)


@cli.command(epilog=examples("oddity clean undo parts 0123456789abcdef0123456789abcdef"))
def undo(
    collection: CollectionArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job that cleaned.")],
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put back what a cleaning took out, as far as nobody has changed its role since."""
    with open_client(server, data) as client:
        told = client.collection(collection).undo_cleaning(job)
    if as_json:
        print_json(told)
    else:
        say(f"{collection}: {(told.undone or {}).get('restored', 0)} images are in the bank again.")
