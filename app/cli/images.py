"""`oddity images`: list, show, fetch, change and delete the images of a collection."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from oddity_client.answers import Role
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import print_json, results
from app.cli.failures import CommandFailed
from app.cli.ingest import made_if_missing
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, WaitOption, YesOption, examples
from app.cli.waiting import finished, say

cli = typer.Typer(no_args_is_help=True, help="List, show, fetch, change and delete the images of a collection.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the image.")]
RoleOption = Annotated[Role | None, typer.Option(help="Only those of this role.")]
LabelOption = Annotated[str | None, typer.Option(help="Only those with this label.")]
GroupOption = Annotated[str | None, typer.Option(help="Only those of this group.")]
FilterOption = Annotated[
    str | None, typer.Option("--filter", metavar="JSON", help="Only those whose metadata fit; see `/docs`.")
]


@cli.command(
    "list",
    epilog=examples(
        "oddity images list -c parts --role anomalous",
        """oddity images list -c parts --filter '{"must": [{"key": "line", "match": 3}]}' --json""",
    ),
)
def list_images(
    collection: CollectionOption,
    role: RoleOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    filter: FilterOption = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 100,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List images in order of arrival."""
    with open_client(server, data) as client:
        images = client.collection(collection).images(
            role=role, label=label, group=group, filter=_filter(filter), page=min(limit or 1000, 1000)
        )
        found = list(islice(images, limit or None))
    if as_json:
        print_json(found)
        return
    table = Table(title=f"Images of {collection}")
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("id", overflow="fold", ratio=2)
    for head in ("role", "label", "group", "size"):
        table.add_column(head, no_wrap=True)
    for one in found:
        size = f"{one.width} x {one.height}"
        table.add_row(str(one.metadata.get("filename", "")), one.id, one.role, one.label or "", one.group or "", size)
    results().print(table)


@cli.command(epilog=examples("oddity images show part-17 -c parts"))
def show(
    image: IdArgument,
    collection: CollectionOption,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of an image."""
    with open_client(server, data) as client:
        found = client.collection(collection).image(image)
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False)
    for name, value in found.model_dump(mode="json").items():
        table.add_row(name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value))
    results().print(table)


@cli.command(epilog=examples("oddity images get part-17 -c parts -o part-17.jpg"))
def get(
    image: IdArgument,
    collection: CollectionOption,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="File to write.")],
    thumbnail: Annotated[bool, typer.Option("--thumbnail", help="The small copy instead.")] = False,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Write the bytes of an image, exactly as they were sent, into a file."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        out.write_bytes(place.thumbnail(image) if thumbnail else place.content(image))
    say(f"Written to {out}.")


@cli.command(
    epilog=examples(
        "oddity images change part-17 -c parts --role anomalous",
        """oddity images change part-17 -c parts --metadata '{"line": 4, "note": null}'""",
    )
)
def change(
    image: IdArgument,
    collection: CollectionOption,
    role: Annotated[Role | None, typer.Option(help="Its new role; takes effect in the bank at once.")] = None,
    label: Annotated[str | None, typer.Option(help="Its new label; '' clears it.")] = None,
    group: Annotated[str | None, typer.Option(help="Its new group; '' clears it.")] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Merged into its metadata; null removes.")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change role, label, group or metadata of an image."""
    changes: dict[str, Any] = {}
    for name, value in (("role", role), ("label", label), ("group", group)):
        if value is not None:
            changes[name] = value or None
    if metadata is not None:
        changes["metadata"] = _json("--metadata", metadata)
    with open_client(server, data) as client:
        changed = client.collection(collection).change_image(image, **changes)
    if as_json:
        print_json(changed)
    else:
        say(f"{changed.id}: role {changed.role}, label {changed.label}, group {changed.group}.")


@cli.command(
    epilog=examples(
        "oddity images delete part-17 part-18 -c parts", "oddity images delete -c parts --role unlabelled -y"
    )
)
def delete(
    collection: CollectionOption,
    images: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of images.")] = None,
    role: RoleOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    filter: FilterOption = None,
    yes: YesOption = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete images by id, or by role, label, group and filter. Exit code 1 when an id is not there."""
    chosen = {"role": role, "label": label, "group": group, "filter": filter}
    if not yes and not images:
        told = ", ".join(f"{name} {value}" for name, value in chosen.items() if value is not None)
        typer.confirm(f"Delete every image of {collection} with {told or 'nothing named'}?", abort=True, err=True)
    with open_client(server, data) as client:
        gone = client.collection(collection).delete_images(
            images or None, role=role, label=label, group=group, filter=_filter(filter)
        )
    if as_json:
        print_json(gone)
    else:
        say(f"{collection}: {gone.deleted} images deleted.")
    if gone.missing:
        raise CommandFailed(f"There is no image {', '.join(gone.missing)} in {collection}.")


@cli.command(
    "import",
    epilog=examples(
        "oddity images import parts.zip -c parts", "oddity images import --folder /mnt/line-3 -c parts --no-wait"
    ),
)
def import_images(
    collection: CollectionOption,
    archive: Annotated[
        Path | None, typer.Argument(metavar="[ARCHIVE]", exists=True, dir_okay=False, help="A zip or tar.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option(help="Instead: a folder of the service's machine that its operator allowed.")
    ] = None,
    role: Annotated[Role | None, typer.Option(help="Role of the images; new ones are normal unless told.")] = None,
    label_from_folder: Annotated[bool, typer.Option("--label-from-folder", help="Label by folder.")] = False,
    group_from_folder: Annotated[bool, typer.Option("--group-from-folder", help="Group by folder.")] = False,
    wait: WaitOption = True,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the images of an archive or folder; goes past bad files, and on after an interruption."""
    with open_client(server, data) as client:
        place = client.collection(collection)
        made_if_missing(place)
        job = place.import_images(
            archive,
            folder=folder,
            role=role,
            label_from_folder=label_from_folder or None,
            group_from_folder=group_from_folder or None,
        )
        job = finished(client, job, f"Importing into {collection}", wait=wait, as_json=as_json)
    if job.result is None:
        return
    if not as_json:
        told = job.result
        say(f"{collection}: {told['created']} created, {told['updated']} updated, {told['refused']} refused.")
        for one in told["problems"]:
            say(f"  {one['name']}: {one['problem']['detail']}")
    if job.result["refused"]:
        raise typer.Exit(1)


def _filter(text: str | None) -> dict[str, Any] | None:
    return None if text is None else _json("--filter", text)


def _json(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"`{option}` must be JSON; {error}.", 2) from error
    if not isinstance(value, dict):
        raise CommandFailed(f"`{option}` must be a JSON object; got {text}.", 2)
    return value
