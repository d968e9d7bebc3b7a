"""Options that several commands share, and examples for their help."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="A running service, such as http://127.0.0.1:8000 [default: ODDITY_SERVER]."
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", file_okay=False, help="Work on this data folder directly [default: ODDITY_DATA, else data]."
    ),
]


def _collection_name(given: str | None) -> str | None:
    """Refuse a path where a name belongs: it would ask the service for something else."""
    if given is not None and "/" in given:
        raise typer.BadParameter(f"the name of a collection holds no `/`; got {given}.")
    return given


CollectionOption = Annotated[
    str, typer.Option("--collection", "-c", help="Name of the collection.", callback=_collection_name)
]
CollectionArgument = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="Name of the collection.", callback=_collection_name)
]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", exists=True, file_okay=False, readable=True, help="Folder, read with all below it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the end, with a bar, or leave the job to a running service.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]


def called() -> str:
    """What to type for `oddity` here: its path, where the shell would not find it by name."""
    program = sys.argv[0]
    return program if Path(program).name == "oddity" and shutil.which("oddity") is None else "oddity"


def examples(*lines: str) -> str:
    """The lines as the end of a command's help."""
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])
