"""`oddity fit`: a method fitted to a collection."""

from typing import Annotated, Any

import typer

from app.cli.client import open_client
from app.cli.collections import named_value
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer()


@cli.command(epilog=examples("oddity fit parts METHOD", "oddity fit parts METHOD --id mine --param k=3 --no-wait"))
def fit(
    collection: CollectionArgument,
    method: Annotated[str, typer.Argument(help="Id of the method; `oddity scorers` lists them.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; repeat it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--id", help="Name of the scorer [default: the method's id].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed learns the same scorer.")] = 0,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a method to the normal images of a collection; the scorer then answers `?scorer=ID`.

    With --no-wait the job is queued, and a running service does it. Exit code 1 when the fit fails.
    """
    params = dict(map(named_value, param or []))
    scorer = name or method
    with open_client(server, data) as client:
        job = client.collection(collection).fit(scorer, method=method, params=params, seed=seed)
        job = finished(client, job, f"Fitting {scorer}", wait=wait, as_json=as_json)
    if job.result is not None and not as_json:
        say(_sentence(collection, scorer, job.result))


def _sentence(collection: str, scorer: str, result: dict[str, Any]) -> str:
    return (
        f"{collection}: {scorer} is ready, fitted on {result['images']} images and calibrated on "
        f"{result['calibration']} in {result['seconds']:.1f} s; {result['bytes']} bytes."
    )
