"""`oddity compress`: a small bank stands for the whole one, which is kept."""

from typing import Annotated, Literal

import typer

from app.cli.client import open_client
from app.cli.console import print_json
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer(no_args_is_help=True, help="Let a small bank stand for the whole one, and go back.")


@cli.command(
    epilog=examples("oddity compress run parts --size 500", "oddity compress run parts --method kmeans --size 100")
)
def run(
    collection: CollectionArgument,
    size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows of the small bank.")],
    method: Annotated[
        Literal["kmeans", "coreset"], typer.Option(help="k-means centres, or images chosen by k-center greedy.")
    ] = "coreset",
    seed: Annotated[int, typer.Option(min=0, help="The same seed chooses the same rows.")] = 0,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a small bank stand for the whole one, and measure what that costs."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        job = finished(
            client, place.compress(method, size, seed=seed), f"Compressing {collection}", wait=wait, as_json=as_json
        )
        if job.result is not None and not as_json:
            say(f"{collection}: a bank of {place.compression().size} stands for the whole one.")
            say(f"`oddity compress show {collection}` shows its cost, `oddity compress drop {collection}` goes back.")


@cli.command(epilog=examples("oddity compress show parts"))
def show(collection: CollectionArgument, server: ServerOption = None, data: DataOption = None) -> None:
    """Show the small bank and its measured cost, as JSON."""
    with open_client(server, data) as client:
        print_json(client.collection(collection).compression())


@cli.command(epilog=examples("oddity compress drop parts"))
def drop(collection: CollectionArgument, server: ServerOption = None, data: DataOption = None) -> None:
    """Go back to the whole bank."""
    with open_client(server, data) as client:
        client.collection(collection).drop_compression()
    say(f"{collection}: the whole bank is in use again.")
