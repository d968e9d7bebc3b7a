"""`oddity collections`: list, show, make, change and delete collections."""

import json
from typing import Annotated, Any

import typer
from oddity_client import CollectionRecord
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.failures import CommandFailed
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, YesOption, examples
from app.cli.waiting import say

cli = typer.Typer(no_args_is_help=True, help="List, show, make, change and delete collections.")

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting, such as metric=l2 or neighbours=5; repeat it."),
]


@cli.command("list", epilog=examples("oddity collections list", "oddity collections list --json | jq '.[].name'"))
def list_collections(server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the collections."""
    with open_client(server, data) as client:
        found = list(client.collections())
    if as_json:
        print_json(found)
        return
    table = Table("collection", "images", "normal", "backbone", "weights", "changed")
    for one in found:
        moment = f"{one.updated_at:%Y-%m-%d %H:%M}"
        table.add_row(
            one.name, str(one.images), str(one.roles.get("normal", 0)), one.backbone, one.weights_label, moment
        )
    results().print(table)


@cli.command(epilog=examples("oddity collections show parts"))
def show(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show what a collection is set to and what it holds."""
    with open_client(server, data) as client:
        _show(client.collection(collection).get(), as_json)


@cli.command(
    epilog=examples(
        "oddity collections put parts", "oddity collections put parts -s metric=l2 -s false_alarm_rate=0.05"
    )
)
def put(
    collection: CollectionArgument,
    setting: SetOption = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a collection, or change the settings given; repeating it changes nothing."""
    with open_client(server, data) as client:
        _show(client.collection(collection).put(**dict(map(named_value, setting or []))), as_json)


@cli.command(epilog=examples("oddity collections delete parts --yes"))
def delete(
    collection: CollectionArgument, yes: YesOption = False, server: ServerOption = None, data: DataOption = None
) -> None:
    """Delete a collection with its images."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        if not yes:
            typer.confirm(f"Delete {collection} with its {place.get().images} images?", abort=True, err=True)
        place.delete()
    say(f"{collection} is deleted.")


def named_value(text: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE; the value is JSON, or else a word. Raises CommandFailed."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise CommandFailed(f"A setting or parameter must be NAME=VALUE; got {text}.", 2)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a word needs no quotation marks


def _show(about: CollectionRecord, as_json: bool) -> None:
    if as_json:
        print_json(about)
        return
    table = Table(title=about.name, show_header=False)
    facts = about.model_dump(mode="json", exclude={"name", "embedding", "sequence"})
    facts["roles"] = ", ".join(f"{count} {role}" for role, count in about.roles.items() if count)
    facts["runtime"] = f"{about.runtime['precision']} by {about.runtime['engine']}" if about.runtime else "none yet"
    for name, value in facts.items():
        table.add_row(name, str(value))
    results().print(table)
