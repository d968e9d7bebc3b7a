"""`oddity index`: what answers the searches of a collection."""

import typer
from rich.filesize import decimal
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, examples
from app.cli.waiting import say

cli = typer.Typer()


@cli.command(epilog=examples("oddity index parts", "oddity index parts --json"))
def index(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show what answers searches: its structure, how much it finds, and the memory that it takes."""
    with open_client(server, data) as client:
        found = client.collection(collection).index()
    if as_json:
        print_json(found)
        return
    table = Table("images", "structure", "recall", "alive", "dead", title=f"{collection} at change {found.sequence}")
    for name, part in found.parts.items():
        recall = "exact" if part["exact"] else f"{part['recall']:.4f}"
        table.add_row(name, part["structure"], recall, str(part["alive"]), str(part["dead"]))
    results().print(table)
    kept = "none yet" if found.file is None else f"{decimal(found.file['bytes'])} at change {found.file['sequence']}"
    say(f"In memory: {decimal(found.bytes)}. File that a start goes on from: {kept}.")
    if found.damaged:
        say(f"Left out, as their stored vectors are damaged: {', '.join(found.damaged)}. Send these images again.")
