"""`oddity explain`: why an image is called what it is called."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.classify import PathsArgument, pictures_of
from app.cli.client import open_client
from app.cli.console import images_progress, messages, print_json, results
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption
from app.cli.sending import Loaded, answers, loaded
from app.explaining.schemas import How

cli = typer.Typer()


@cli.command()
def explain(
    paths: PathsArgument,
    collection: CollectionOption,
    scorer: Annotated[
        str, typer.Option(help="Whose answer: dn2, a fitted scorer, or few_shot_lr for classes.")
    ] = "dn2",
    method: Annotated[How, typer.Option(help="Examples alone, or a map beside them.")] = "examples",
    neighbours: Annotated[int, typer.Option(min=1, max=100, help="Images shown of each kind.")] = 3,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", file_okay=False, help="Folder for the maps, PNG files to lay over.")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the nearest normal images, known defects and examples of classes, and on request draw a map.

    Exit code 1 when any image could not be explained.
    """
    pictures = pictures_of(paths)
    fields = {"scorer": scorer, "method": method, "neighbours": str(neighbours)}
    told: list[dict[str, Any]] = []
    with open_client(server, data) as client, images_progress() as progress:
        bar = progress.add_task("Explaining", total=len(pictures))
        for image in loaded(pictures):  # one by one: a map may take as long as a request may
            one: list[Loaded] = [image]
            told += answers(client, f"{client.collection(collection)}/explain", "results", one, lambda _: fields)
            progress.advance(bar)
    found = [{"path": picture.name, **one} for picture, one in zip(pictures, told, strict=True)]
    if out is not None:
        _write_maps(out, found)
    if as_json:
        print_json({"collection": collection, "scorer": scorer, "method": method, "results": found})
    else:
        results().print(_table(collection, found))
    if any("problem" in one for one in found):
        raise typer.Exit(1)


def _write_maps(folder: Path, found: Sequence[dict[str, Any]]) -> None:
    maps = [one for one in found if "map" in one]
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(maps):
        path = folder / f"{number:04d}-{Path(one['path']).stem}.png"
        path.write_bytes(base64.b64decode(one["map"]["overlay"].partition(",")[2]))
        one["map"]["file"] = str(path)
    messages().print(f"{len(maps)} maps written to {folder}.", highlight=False, markup=False)


def _table(collection: str, found: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"Nearest in {collection}")
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("p-value", justify="right", no_wrap=True)
    table.add_column("kind", overflow="fold", ratio=2)
    table.add_column("nearest images", overflow="fold", ratio=4)
    for one in found:
        if "problem" in one:
            table.add_row(one["path"], "", "", "", one["problem"]["detail"])
            continue
        examples = one["examples"]
        kinds = [("normal", examples["normal"]), ("known defects", examples["anomalous"])]
        kinds += [(kind["label"], kind["examples"]) for kind in examples["classes"]]
        p_value = "" if one["p_value"] is None else f"{one['p_value']:.4f}"
        head = [one["path"], f"{one['score']:.4f}", p_value]
        for kind, near in kinds:
            if near:
                table.add_row(*head, kind, "\n".join(_line(image) for image in near))
                head = ["", "", ""]
    return table


def _line(image: dict[str, Any]) -> str:
    return f"{image['distance']:.4f}  {image['metadata'].get('filename') or image['id']}"
