"""`oddity embeddings`: versions of a collection's embedding."""

from typing import Annotated

import typer
from oddity_client import ActiveEmbedding, EmbeddingVersion
from rich.table import Table

from app.cli.client import open_client
from app.cli.collections import named_value
from app.cli.console import print_json, results
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer(
    no_args_is_help=True, help="Learn versions of a collection's embedding, compare them, go over to one and back."
)

VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")]


@cli.command("list", epilog=examples("oddity embeddings list parts"))
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


@cli.command(
    epilog=examples(
        "oddity embeddings learn parts METHOD --activate", "oddity embeddings learn parts METHOD -p trials=5"
    )
)
def learn(
    collection: CollectionArgument,
    method: Annotated[str, typer.Argument(help="Id of a method that gives an embedding; `oddity scorers` lists them.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; repeat it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed learns the same embedding.")] = 0,
    activate: Annotated[bool, typer.Option("--activate", help="Go over to it at the end, if it is better.")] = False,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a version from labelled images, measure it, and give every image its vector under it."""
    params = dict(map(named_value, param or []))
    with open_client(server, data) as client:
        job = client.collection(collection).learn_embedding(method, params=params, seed=seed, activate=activate)
        job = finished(client, job, f"Learning by {method}", wait=wait, as_json=as_json)
    if job.result is not None and not as_json:
        told = job.result
        judged = {True: "better than", False: "not better than", None: "perhaps better than"}[told["better"]]
        say(
            f"{collection}: version {told['version']} is {judged} the network's own vectors, and "
            f"{'active' if told['activated'] else 'ready'}."
        )


@cli.command(epilog=examples("oddity embeddings activate parts 2"))
def activate(
    collection: CollectionArgument,
    version: VersionArgument,
    force: Annotated[bool, typer.Option("--force", help="Also where it is not better.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the collection answer by a version; refused where it is not better."""
    with open_client(server, data) as client:
        _show_active(collection, client.collection(collection).activate_embedding(version, force=force), as_json)


@cli.command(epilog=examples("oddity embeddings rollback parts"))
def rollback(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Have the collection answer by the version that was active before."""
    with open_client(server, data) as client:
        _show_active(collection, client.collection(collection).roll_back_embedding(), as_json)


@cli.command(epilog=examples("oddity embeddings delete parts 2"))
def delete(
    collection: CollectionArgument, version: VersionArgument, server: ServerOption = None, data: DataOption = None
) -> None:
    """Delete a version that is not active."""
    with open_client(server, data) as client:
        client.collection(collection).delete_embedding(version)
    say(f"{collection}: version {version} is deleted.")


def _show_active(collection: str, told: ActiveEmbedding, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    say(f"{collection}: answers by version {told.active} ({told.fingerprint[:16]}).")
    if told.stale_scorers:
        say(f"Fit again what is still wanted: {', '.join(told.stale_scorers)}.")


def _figure(one: EmbeddingVersion, which: str) -> str:
    value = (getattr(one, which) or {}).get("map_at_r")
    return "" if value is None else f"{value:.3f}"
