"""`oddity compact`: what is dead is dropped, memory and disk are given back."""

import typer

from app.cli.client import open_client
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer()


@cli.command(epilog=examples("oddity compact parts", "oddity compact parts --no-wait"))
def compact(
    collection: CollectionArgument,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop what deletions left, and give memory and disk back. Large collections do it by themselves."""
    with open_client(server, data) as client:
        job = client.collection(collection).compact()
        job = finished(client, job, f"Compacting {collection}", wait=wait, as_json=as_json)
    if job.result is not None and not as_json:
        say(f"{collection}: {job.result['dead_before']} dead rows dropped, {job.result['alive']} alive.")
