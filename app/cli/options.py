"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="A running service, such as http://127.0.0.1:8000."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", file_okay=False, help="Work on this data folder directly [default: ODDITY_DATA, else data]."
    ),
]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", exists=True, file_okay=False, readable=True, help="Folder, read with all below it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
