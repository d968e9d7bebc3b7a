"""`oddity embeddings`: versions of a collection's embedding."""

from typing import Annotated

import typer
from oddity_client import ActiveEmbedding, EmbeddingVersion, JobFailed
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import messages, print_json, results
from app.cli.options import DataOption, JsonOption, ParamsOption, ServerOption, parameter
from app.cli.waiting import ended

cli = typer.Typer(
    no_args_is_help=True, help="Learn versions of a collection's embedding, compare them, go over to one and back."
)

CollectionArgument = Annotated[str, typer.Argument(help="Name of the collection.")]


@cli.command("list")
def list_versions(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the versions, with their figures on classes that nothing was learnt from."""
    with open_client(server, data) as client:
        found = client.collection(collection).embeddings()
    if as_json:
        print_json(found)
        return
    table = Table("version", "state", "method", "width", "MAP@R before", "after", "better", "fingerprint")
    for one in found:
        table.add_row(
            str(one.version),
            one.state,
            one.method or "the network's own",
            str(one.width),
            _figure(one, "before"),
            _figure(one, "after"),
            "" if one.better is None else "yes" if one.better else "no",
            one.fingerprint[:16],
        )
    results().print(table)


@cli.command()
def learn(
    collection: CollectionArgument,
    method: Annotated[str, typer.Argument(help="Id of a method that gives an embedding; `oddity scorers` lists them.")],
    param: ParamsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed learns the same embedding.")] = 0,
    activate: Annotated[bool, typer.Option("--activate", help="Go over to it at the end, if it is better.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with a bar.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a version from labelled images, measure it, and give every image its vector under it."""
    params = dict(map(parameter, param or []))
    with open_client(server, data) as client:
        job = client.collection(collection).learn_embedding(method, params=params, seed=seed, activate=activate)
        if wait:
            job = ended(client, job, f"Learning by {method}")
    if as_json:
        print_json(job)
    if job.state in ("failed", "cancelled"):
        raise JobFailed(job)
    if as_json:
        return
    if job.result is None:
        _say(f"{collection}: an embedding is {job.state} as job {job.id}.")
        return
    told = job.result
    judged = {True: "better than", False: "not better than", None: "perhaps better than"}[told["better"]]
    _say(
        f"{collection}: version {told['version']} is {judged} the network's own vectors, and "
        f"{'active' if told['activated'] else 'ready'}."
    )


@cli.command()
def activate(
    collection: CollectionArgument,
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    force: Annotated[bool, typer.Option("--force", help="Also where it is not better.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the collection answer by a version; refused where it is not better."""
    with open_client(server, data) as client:
        _show_active(collection, client.collection(collection).activate_embedding(version, force=force), as_json)


@cli.command()
def rollback(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Have the collection answer by the version that was active before."""
    with open_client(server, data) as client:
        _show_active(collection, client.collection(collection).roll_back_embedding(), as_json)


@cli.command()
def delete(
    collection: CollectionArgument,
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Delete a version that is not active."""
    with open_client(server, data) as client:
        client.collection(collection).delete_embedding(version)
    _say(f"{collection}: version {version} is deleted.")


def _show_active(collection: str, told: ActiveEmbedding, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    _say(f"{collection}: answers by version {told.active} ({told.fingerprint[:16]}).")
    if told.stale_scorers:
        _say(f"Fit again what is still wanted: {', '.join(told.stale_scorers)}.")


def _figure(one: EmbeddingVersion, which: str) -> str:
    value = (getattr(one, which) or {}).get("map_at_r")
    return "" if value is None else f"{value:.3f}"


def _say(sentence: str) -> None:
    messages().print(sentence, highlight=False, markup=False, soft_wrap=True)
