"""`oddity fit`: a method fitted to a collection."""

import json
from typing import Annotated, Any

import typer
from oddity_client import Job, JobFailed

from app.cli.client import open_client
from app.cli.console import messages, print_json
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, JsonOption, ServerOption
from app.cli.waiting import ended

cli = typer.Typer()


@cli.command()
def fit(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    method: Annotated[str, typer.Argument(help="Id of the method; `oddity scorers` lists them.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; repeat it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--id", help="Name of the scorer [default: the method's id].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed learns the same scorer.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with a bar.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a method to the normal images of a collection; the scorer then answers `?scorer=ID`.

    Without --wait the job is queued, and a running service does it. Exit code 1 when the fit fails.
    """
    params = dict(map(_parameter, param or []))
    scorer = name or method
    with open_client(server, data) as client:
        job = client.collection(collection).fit(scorer, method=method, params=params, seed=seed)
        if wait:
            job = ended(client, job, f"Fitting {scorer}")
    if as_json:
        print_json(job)
    if job.state in ("failed", "cancelled"):
        raise JobFailed(job)
    if not as_json:
        messages().print(_sentence(collection, scorer, job), highlight=False, markup=False, soft_wrap=True)


def _sentence(collection: str, scorer: str, job: Job) -> str:
    if job.result is None:
        return f"{collection}: {scorer} is {job.state} as job {job.id}."
    result = job.result
    return (
        f"{collection}: {scorer} is ready, fitted on {result['images']} images and calibrated on "
        f"{result['calibration']} in {result['seconds']:.1f} s; {result['bytes']} bytes."
    )


def _parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise CommandFailed(f"`--param` must be NAME=VALUE; got {text}.", 2)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a word needs no quotation marks
