"""Entry point of the console script `oddity`."""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import typer
from oddity_client import Invalid, OddityError
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from app.cli.console import messages
from app.cli.failures import CommandFailed
from app.cli.options import examples
from models.garbage import made_to_stay

# Name -> one line for `oddity --help`. Each is the module of the same name in this package, imported only
# when it is asked for: the network's libraries take seconds to load, and most commands do without them.
COMMANDS = {
    "serve": "Run the service.",
    "worker": "Run jobs; `oddity serve` starts one by itself.",
    "demo": "Build two small collections from images made on the spot, and score some.",
    "ingest": "Add the images of a folder to a collection.",
    "score": "Score the images of a folder; writes a CSV file.",
    "scores": "List stored images by score, strangest first.",
    "map": "Write where stored images lie on a plane.",
    "report": "Score the images of a folder; writes one page with the strangest.",
    "explain": "Say why: the nearest images of every kind, and maps on request.",
    "search": "Find the images most like one image.",
    "classify": "Say which of the classes each image is, or none of them.",
    "collections": "List, show, make, change and delete collections.",
    "images": "List, show, fetch, import, change and delete images.",
    "classes": "Make, list and delete classes that are known from a few images.",
    "groups": "Register normal sets of images, and score a set as one.",
    "fit": "Fit a method to a collection.",
    "embeddings": "Learn versions of a collection's embedding, compare them, go over to one and back.",
    "scorers": "List the methods, or the scorers of a collection; delete one.",
    "feedback": "Say what was wrong or right about a verdict, compare and rate images; take it back.",
    "drift": "Say whether images that were scored are still like the normal ones.",
    "duplicates": "Find images that are there more than once.",
    "clean": "Take the strangest images out of a bank, and put them back.",
    "compress": "Let a small bank stand for the whole one, and go back.",
    "calibrate": "Compute the calibration afresh, and check the kept one.",
    "index": "Show what answers searches, and what it takes.",
    "compact": "Drop what deletions left, give memory and disk back.",
    "snapshots": "Take copies of a collection, and bring them back.",
    "jobs": "List, show, wait for and cancel long work.",
    "keys": "Make, list, rotate and revoke API keys.",
    "audit": "Show who wrote what, and what keys were used for.",
    "migrate": "Bring the tables of the record to this version.",
    "collect": "Delete files and notes that nobody needs any more; workers do it by themselves.",
    "weights": "List the weights of backbones, or fetch some once.",
    "pretrain": "Train a backbone on folders of images, measure it, and export it.",
    "bench": "Measure accuracy, kept promises, methods, search, speed and limits.",
}
COMPLETION = ("install_completion", "show_completion")


class LateGroup(TyperGroup):
    """The commands above, each imported only when it is the one that runs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Stand-ins that have the name and the line of help.
        self.commands.update({name: TyperCommand(name, help=line) for name, line in COMMANDS.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        if name not in COMMANDS or stand_in is None:
            return name, stand_in, rest
        command = typer.main.get_command(_imported(f"app.cli.{name}").cli)
        command.name = name
        command.params = [one for one in command.params if one.name not in COMPLETION]  # options of `oddity` itself
        return name, command, rest


cli = typer.Typer(
    cls=LateGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "oddity serve",
        "oddity ingest good-parts/ -c parts",
        "oddity score new-parts/ -c parts -o scores.csv",
        "oddity report new-parts/ -c parts -o report.html",
    )
    + "\n\nExit codes: 0 done; 1 not done, or not wholly (the message says what is missing); 2 typed wrongly, or a"
    " parameter is out of range; 130 interrupted. Results go to standard output, everything else to standard error.",
)


@cli.callback()
def _oddity() -> None:
    """Oddity: image anomaly detection and similarity search, self-hosted."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a failure is a sentence and exit code 1, or 2 when it was typed wrongly."""
    try:
        cli(args=None if arguments is None else list(arguments), prog_name="oddity")
    except CommandFailed as failure:
        messages().print(f"[bold red]Error:[/] {_plain(str(failure))}", highlight=False, soft_wrap=True)
        sys.exit(failure.exit_code)
    except OddityError as error:
        messages().print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, Invalid) else 1)
    except ValidationError as error:
        first = error.errors()[0]
        name = "ODDITY_" + "_".join(map(str, first["loc"])).upper()
        messages().print(f"[bold red]Error:[/] `{name}`: {_plain(first['msg'])}.", highlight=False, soft_wrap=True)
        sys.exit(2)


def _imported(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    with made_to_stay():
        return importlib.import_module(name)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
