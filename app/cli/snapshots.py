"""`oddity snapshots`: take a copy of a collection, list, download and delete copies, bring one back."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.options import CollectionArgument, DataOption, JsonOption, ServerOption, WaitOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer(no_args_is_help=True, help="Take copies of a collection, and bring them back.")

SNAPSHOT_ID = re.compile("[0-9a-f]{32}")
SnapshotArgument = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Id of the snapshot.")]


@cli.command(
    epilog=examples("oddity snapshots make parts -o parts.tar", "oddity snapshots make parts --without-images")
)
def make(
    collection: CollectionArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", dir_okay=False, help="Download it to this file, too.")
    ] = None,
    without_images: Annotated[bool, typer.Option("--without-images", help="Vectors and facts only.")] = False,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a collection as it stands into one file."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        job = place.make_snapshot(images=not without_images)
        job = finished(client, job, f"Snapshot of {collection}", wait=wait or out is not None, as_json=as_json)
        if job.result is None:
            return
        if out is not None:
            place.download_snapshot(job.result["snapshot"], out)
    if not as_json:
        where = "" if out is None else f", written to {out}"
        say(f"{collection}: snapshot {job.result['snapshot']}, {job.result['bytes']:,} bytes{where}.")


@cli.command("list", epilog=examples("oddity snapshots list parts"))
def list_snapshots(
    collection: CollectionArgument, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the snapshots of a collection, newest first."""
    with open_client(server, data) as client:
        found = list(client.collection(collection).snapshots())
    if as_json:
        print_json(found)
        return
    table = Table("snapshot", "images", "with their bytes", "bytes", "made", title=f"Snapshots of {collection}")
    for one in found:
        has_bytes = "yes" if one.with_images else "no"
        table.add_row(one.id, str(one.images), has_bytes, f"{one.bytes:,}", f"{one.created_at:%Y-%m-%d %H:%M}")
    results().print(table)


@cli.command(epilog=examples("oddity snapshots download parts 0123456789abcdef0123456789abcdef -o parts.tar"))
def download(
    collection: CollectionArgument,
    snapshot: SnapshotArgument,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="File to write.")],
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Write a snapshot to a file, which takes its name when it is complete."""
    with open_client(server, data) as client:
        client.collection(collection).download_snapshot(snapshot, out)
    say(f"Written to {out}.")


@cli.command(epilog=examples("oddity snapshots delete parts 0123456789abcdef0123456789abcdef"))
def delete(
    collection: CollectionArgument, snapshot: SnapshotArgument, server: ServerOption = None, data: DataOption = None
) -> None:
    """Delete a snapshot and its file."""
    with open_client(server, data) as client:
        client.collection(collection).delete_snapshot(snapshot)
    say(f"{collection}: snapshot {snapshot} is deleted.")


@cli.command(
    epilog=examples(
        "oddity snapshots restore parts-again parts.tar",
        "oddity snapshots restore parts-again 0123456789abcdef0123456789abcdef",
    )
)
def restore(
    collection: CollectionArgument,
    source: Annotated[str, typer.Argument(metavar="FILE|SNAPSHOT", help="A downloaded file, or the id of a snapshot.")],
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new collection from a snapshot: checked as a whole first, and visible only when complete."""
    is_file = Path(source).is_file()
    if not is_file and Path(collection).is_file():
        raise typer.BadParameter(f"the new collection's name comes first, then the file; got {collection} first.")
    if not is_file and not SNAPSHOT_ID.fullmatch(source):
        raise typer.BadParameter(f"{source} must be a file that is there, or the id of a snapshot (32 hex digits).")
    with open_client(server, data) as client:
        place = client.collection(collection)
        job = place.restore(Path(source)) if is_file else place.restore(snapshot=source)
        job = finished(client, job, f"Restoring {collection}", wait=wait, as_json=as_json)
        if job.result is not None and not as_json:
            say(f"{collection} is back, with {place.get().images} images.")
