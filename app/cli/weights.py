"""`oddity weights`: what there is, and bringing published weights once."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from app.cli.client import folder_settings
from app.cli.console import messages, print_json, results
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, JsonOption, examples
from models.backbones.cards import backbone_cards
from models.backbones.fetch import fetch_weights
from models.backbones.loader import default_weights
from models.backbones.resnet import BACKBONES
from models.errors import ModelsError

cli = typer.Typer(no_args_is_help=True, help="List the weights of backbones, or fetch some once.")


@cli.command("list", epilog=examples("oddity weights list"))
def list_weights(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the backbones with the weights that are here for them."""
    folder = _folder(data)
    here = {
        name: {
            "default": default_weights(name),
            "torchvision": (folder / record.weights_file).is_file(),
            "file": record.weights_file,
            "licence": record.weights_licence,
        }
        for name, record in BACKBONES.items()
    }
    if as_json:
        print_json(here)
        return
    table = Table(title=f"Weights; published files go to {folder}")
    for head in ("backbone", "default here", "published file", "fetched"):
        table.add_column(head)
    for name, facts in here.items():
        fetched = "yes" if facts["torchvision"] else "no"
        table.add_row(name, str(facts["default"]), str(facts["file"]), fetched)
    results().print(table)


@cli.command(epilog=examples("oddity weights show resnet18"))
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone of `oddity weights list`.")] = "resnet18",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the weights of a backbone come from: data, terms, recipe, figures, known weaknesses."""
    try:
        cards = {one["id"]: one for one in backbone_cards(_folder(data))}
    except ModelsError as error:
        raise CommandFailed(str(error)) from error
    if name not in cards:
        raise CommandFailed(f"`NAME` must be one of {', '.join(cards)}; got {name}.", 2)
    card = cards[name]
    if as_json:
        print_json(card)
        return
    published = card["torchvision"]
    say = partial(results().print, highlight=False, markup=False, soft_wrap=True)
    say(f"{name}: stages of {', '.join(map(str, card['stage_widths']))}; weights by default: {card['default_weights']}")
    say(
        f"torchvision: {published['file']}, {published['licence']}; {'here' if published['is_here'] else 'not fetched'}"
    )
    if (embedded := card["embedded"]) is None:
        say("embedded: none in this copy")
        return
    say(f"embedded: {embedded['file']}, {embedded['bytes']:,} bytes, sha256 {embedded['sha256']}")
    say(f"  terms: {embedded['terms']}")
    for title, part in (("learnt from", "data"), ("taught by", "teachers")):
        for one in embedded[part]:
            say(f"  {title}: {one['name']}, {one['images']:,} images ({one['terms']})")
    say(
        f"  served at {embedded['image_size']} px unless told otherwise; trained {embedded['trained_on']}, "
        f"commit {embedded['commit']}"
    )
    if embedded.get("int8"):
        say(f"  served in 8-bit integers on processors: {len(embedded['int8']['ranges'])} ranges of activations")
    say(f"  {embedded['hours']:.1f} hours, {embedded['images_seen']:,} images seen, {embedded['hardware']}")
    say(f"  by: {embedded['command']}")
    for figure, value in embedded["figures"].items():
        say(f"  {figure}: {value}")
    for weakness in embedded["weaknesses"]:
        say(f"  beware: {weakness}")


@cli.command(epilog=examples("oddity weights fetch resnet18"))
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone of `oddity weights list`.")],
    data: DataOption = None,
    url: Annotated[str | None, typer.Option(help="Address of a mirror of the same file.")] = None,
) -> None:
    """Download the published weights of a backbone into the data folder, checked by their sha256."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=messages()) as progress:
            bar = progress.add_task(name, total=None)
            path = fetch_weights(
                name,
                _folder(data),
                url=url,
                progress=lambda so_far, total: progress.update(bar, completed=so_far, total=total),
            )
    except ModelsError as error:
        raise CommandFailed(str(error)) from error
    messages().print(f"{path} is here; collections use it with weights `torchvision`.", soft_wrap=True)


def _folder(data: Path | None) -> Path:
    return folder_settings(data).data / "weights"
