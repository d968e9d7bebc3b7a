"""`oddity classes`: make, list and delete classes that are known from a few images."""

from typing import Annotated, Any, Literal

import typer
from oddity_client import NewImage
from rich.table import Table

from app.cli.classify import PathsArgument, pictures_of
from app.cli.client import open_client
from app.cli.console import messages, print_json, results
from app.cli.ingest import made_if_missing
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, examples
from app.cli.sending import batches, loaded

cli = typer.Typer(no_args_is_help=True, help="Make, list and delete classes that are known from a few images.")

LabelArgument = Annotated[str, typer.Argument(metavar="LABEL", help="Label of the class.")]


@cli.command(epilog=examples("oddity classes put scratch scratches/ -c parts"))
def put(
    label: LabelArgument,
    paths: PathsArgument,
    collection: CollectionOption,
    replace: Annotated[
        bool, typer.Option("--replace", help="Leave the class with these images only [default: add to it].")
    ] = False,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a class from images, or add to it; makes the collection when it is not there.

    A folder with one folder for each class is registered by `oddity ingest DIR --role example --label-from-folder`.
    Exit code 1 when any image was refused.
    """
    pictures = pictures_of(paths)
    items: list[dict[str, Any]] = []
    count = 0
    with open_client(server, data) as client:
        place = client.collection(collection)
        made_if_missing(place)
        mode: Literal["replace", "extend"] = "replace" if replace else "extend"
        for batch in batches(loaded(pictures)):
            readable = [NewImage(image.data, image.picture.name) for image in batch if image.fault is None]
            if readable:
                told = place.put_class(label, readable, mode=mode)
                count, mode = told.count, "extend"
                items += [one.model_dump(mode="json", exclude_unset=True) for one in told.items]
            items += [
                {"id": image.picture.name, "status": "refused", "problem": {"detail": image.fault}}
                for image in batch
                if image.fault is not None
            ]
    refused = [one for one in items if one["status"] == "refused"]
    if as_json:
        print_json({"collection": collection, "label": label, "count": count, "items": items})
    else:
        text = f"{len(items) - len(refused)} images taken, {len(refused)} refused; the class has {count}"
        messages().print(f"{collection}, {label}: {text}.", highlight=False, markup=False)
        for one in refused:
            messages().print(f"  {one['id']}: {one['problem']['detail']}", highlight=False, markup=False)
    if refused:
        raise typer.Exit(1)


@cli.command("list", epilog=examples("oddity classes list -c parts"))
def list_classes(
    collection: CollectionOption, server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the classes of a collection."""
    with open_client(server, data) as client:
        told = client.collection(collection).classes()
    if as_json:
        print_json({"classes": told})
        return
    table = Table(title=f"Classes of {collection}")
    table.add_column("class", overflow="fold")
    table.add_column("images", justify="right")
    table.add_column("since", no_wrap=True)
    for one in told:
        table.add_row(one.label, str(one.count), f"{one.created_at:%Y-%m-%d %H:%M}")
    results().print(table)


@cli.command(epilog=examples("oddity classes delete scratch -c parts"))
def delete(
    label: LabelArgument,
    collection: CollectionOption,
    images: Annotated[
        Literal["keep", "delete"], typer.Option(help="Whether its images stay in the collection or go with it.")
    ] = "keep",
    role: Annotated[
        Literal["unlabelled", "normal", "anomalous"] | None,
        typer.Option(help="Role of images that stay; unset: what each was before."),
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Forget a class."""
    with open_client(server, data) as client:
        client.collection(collection).delete_class(label, images=images, role=role)
    messages().print(f"{collection}: class {label} is forgotten.", highlight=False, markup=False)
