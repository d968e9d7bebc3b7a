"""`oddity jobs`: list, show, wait for and cancel long work."""

from itertools import islice
from typing import Annotated

import typer
from oddity_client import Job
from oddity_client.answers import JobState
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.options import DataOption, JsonOption, ServerOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer(no_args_is_help=True, help="List, show, wait for and cancel long work.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


@cli.command("list", epilog=examples("oddity jobs list --state running", "oddity jobs list -c parts --kind fit"))
def list_jobs(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only those of this collection.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only those of this kind, such as fit or import.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with open_client(server, data) as client:
        found = list(islice(client.jobs(collection=collection, state=state, kind=kind, page=limit), limit))
    if as_json:
        print_json(found)
        return
    table = Table("job", "kind", "collection", "state", "done", "left", "since")
    for one in found:
        left = "" if one.progress.remaining_s is None else f"{one.progress.remaining_s:.0f} s"
        since = f"{one.created_at:%Y-%m-%d %H:%M}"
        table.add_row(one.id, one.kind, one.collection or "", one.state, _done(one), left, since)
    results().print(table)


@cli.command(epilog=examples("oddity jobs show 0123456789abcdef0123456789abcdef"))
def show(job: JobArgument, server: ServerOption = None, data: DataOption = None) -> None:
    """Show a job whole: state, progress, result or problem, as JSON."""
    with open_client(server, data) as client:
        print_json(client.job(job))


@cli.command(epilog=examples("oddity jobs wait 0123456789abcdef0123456789abcdef"))
def wait(job: JobArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Wait for the end of a job, with a bar. Exit code 1 when it fails or is cancelled."""
    with open_client(server, data) as client:
        current = client.job(job)
        finished(client, current, current.kind, wait=True, as_json=as_json)
    if not as_json:
        say(f"Job {job} has succeeded.")


@cli.command(epilog=examples("oddity jobs cancel 0123456789abcdef0123456789abcdef"))
def cancel(job: JobArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Ask for the end of a job: a queued one ends at once, a running one at its next step."""
    with open_client(server, data) as client:
        current = client.cancel(job)
    if as_json:
        print_json(current)
    else:
        say(f"Job {job} is {current.state}{'' if current.has_ended else ', and will end at its next step'}.")


def _done(job: Job) -> str:
    return str(job.progress.done) if job.progress.total is None else f"{job.progress.done}/{job.progress.total}"
