"""`oddity explain`: why an image is called what it is called."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from oddity_client import Explained, ItemProblem, Neighbour
from rich.table import Table

from app.cli.classify import PathsArgument, pictures_of
from app.cli.client import open_client
from app.cli.console import images_progress, messages, print_json, results, short_number
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, examples
from app.cli.sending import answers, loaded
from app.explaining.schemas import How

cli = typer.Typer()


@cli.command(
    epilog=examples("oddity explain new.jpg -c parts", "oddity explain new.jpg -c parts --method occlusion -o maps")
)
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
    told: list[Explained | ItemProblem] = []
    with open_client(server, data) as client, images_progress() as progress:
        place = client.collection(collection)
        bar = progress.add_task("Explaining", total=len(pictures))
        for image in loaded(pictures):  # one by one: a map may take as long as a request may
            told += answers(
                lambda images: place.explain(images, scorer=scorer, method=method, neighbours=neighbours).results,
                [image],
            )
            progress.advance(bar)
    found = [(picture.name, one) for picture, one in zip(pictures, told, strict=True)]
    files = {} if out is None else _written_maps(out, found)
    if as_json:
        shown = [
            {"path": name, **one.model_dump(mode="json", exclude_unset=True), **files.get(name, {})}
            for name, one in found
        ]
        print_json({"collection": collection, "scorer": scorer, "method": method, "results": shown})
    else:
        results().print(_table(collection, found))
    if any(isinstance(one, ItemProblem) for one in told):
        raise typer.Exit(1)


def _written_maps(folder: Path, found: Sequence[tuple[str, Explained | ItemProblem]]) -> dict[str, dict[str, str]]:
    """Where the map of each image was written."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, str]] = {}
    for number, (name, one) in enumerate(found):
        if isinstance(one, Explained) and one.map is not None:
            path = folder / f"{number:04d}-{Path(name).stem}.png"
            path.write_bytes(base64.b64decode(one.map.overlay.partition(",")[2]))
            files[name] = {"map_file": str(path)}
    messages().print(f"{len(files)} maps written to {folder}.", highlight=False, markup=False)
    return files


def _table(collection: str, found: Sequence[tuple[str, Explained | ItemProblem]]) -> Table:
    table = Table(title=f"Nearest in {collection}")
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("p-value", justify="right", no_wrap=True)
    table.add_column("kind", overflow="fold", ratio=2)
    table.add_column("nearest images", overflow="fold", ratio=4)
    for name, one in found:
        if isinstance(one, ItemProblem):
            table.add_row(name, "", "", "", one.problem.detail)
            continue
        kinds = [("normal", one.examples.normal), ("known defects", one.examples.anomalous)]
        kinds += [(kind.label, kind.examples) for kind in one.examples.classes]
        head = [name, short_number(one.score), "" if one.p_value is None else f"{one.p_value:.4f}"]
        for kind, near in kinds:
            if near:
                table.add_row(*head, kind, "\n".join(map(_line, near)))
                head = ["", "", ""]
    return table


def _line(image: Neighbour) -> str:
    return f"{short_number(image.distance)}  {image.metadata.get('filename') or image.id}"
