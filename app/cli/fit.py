"""`oddity fit`: a method fitted to a collection."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import Client, open_client
from app.cli.console import messages, print_json, steps_progress
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, JsonOption, ServerOption

LOOK_EVERY_S = 0.2

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
    body = {"method": method, "params": dict(map(_parameter, param or [])), "seed": seed}
    scorer = name or method
    with open_client(server, data) as client:
        job = client.put(f"{client.collection(collection)}/scorers/{quote(scorer, safe='')}", body)
        if wait:
            job = _ended(client, job, f"Fitting {scorer}")
    if as_json:
        print_json(job)
    if job["state"] in ("failed", "cancelled"):
        told = job["problem"]["detail"] if job["problem"] else "The fit was cancelled."
        raise CommandFailed(told)
    if not as_json:
        messages().print(_sentence(collection, scorer, job), highlight=False, markup=False, soft_wrap=True)


def _ended(client: Client, job: dict[str, Any], title: str) -> dict[str, Any]:
    """The job when it has ended; a bar shows how far it is."""
    with steps_progress() as progress:
        bar = progress.add_task(title, total=None)
        while job["state"] in ("queued", "running"):
            time.sleep(LOOK_EVERY_S)
            job = client.get(f"/v1/jobs/{job['id']}")
            told = job["progress"]
            stage = f"{title}: {told['stage']}" if told["stage"] else title
            progress.update(bar, description=stage, completed=told["done"], total=told["total"])
    return job


def _sentence(collection: str, scorer: str, job: dict[str, Any]) -> str:
    if job["state"] != "succeeded":
        return f"{collection}: {scorer} is {job['state']} as job {job['id']}."
    result = job["result"]
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
