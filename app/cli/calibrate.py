"""`oddity calibrate`: the calibration, computed afresh and compared with the one that is kept."""

from typing import Annotated

import typer

from app.cli.client import open_client
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer()


@cli.command(epilog=examples("oddity calibrate parts", "oddity calibrate parts --k 5 --json"))
def calibrate(
    collection: CollectionArgument,
    k: Annotated[int | None, typer.Option(min=1, max=64, help="k of dn2 [default: the collection's].")] = None,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the calibration afresh, check the kept one against it, and say which rates it supports."""
    with open_client(server, data) as client:
        job = client.collection(collection).calibrate(k=k)
        job = finished(client, job, f"Calibrating {collection}", wait=wait, as_json=as_json)
    if job.result is not None and not as_json:
        say(f"{collection}: calibrated on {job.result['n']} images; --json shows which rates that supports.")
