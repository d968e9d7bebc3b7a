"""`oddity classify`: which of the classes each image is, or none of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from oddity_client import Classified, ItemProblem
from rich.table import Table

from app.cli.client import open_client
from app.cli.console import images_progress, print_json, results
from app.cli.options import CollectionOption, DataOption, JsonOption, ServerOption, examples
from app.cli.sending import Picture, answers, batches, folder_pictures, loaded

cli = typer.Typer()

PathsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="FILES...", exists=True, readable=True, help="Images, or folders read with all below them."),
]


@cli.command(epilog=examples("oddity classify new/*.jpg -c parts", "oddity classify new/ -c parts --top 1 --json"))
def classify(
    paths: PathsArgument,
    collection: CollectionOption,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Share of images of known classes that may be called unknown [default: the collection's]."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes listed for each image, likeliest first.")] = 3,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which class each image belongs to, how sure that is, and whether it is near none of the classes.

    Exit code 1 when any image could not be classified.
    """
    pictures = pictures_of(paths)
    asked: dict[str, Any] = {"top": top, "false_alarm_rate": false_alarm_rate}
    told: list[Classified | ItemProblem] = []
    with open_client(server, data) as client, images_progress() as progress:
        place = client.collection(collection)
        bar = progress.add_task("Classifying", total=len(pictures))
        for batch in batches(loaded(pictures)):
            told += answers(lambda images: place.classify_all(images, **asked), batch)
            progress.advance(bar, len(batch))
    found = [(picture.name, one) for picture, one in zip(pictures, told, strict=True)]
    if as_json:
        shown = [{"path": name, **one.model_dump(mode="json", exclude_unset=True)} for name, one in found]
        print_json({"collection": collection, "results": shown})
    else:
        results().print(_table(collection, found))
    if any(isinstance(one, ItemProblem) for one in told):
        raise typer.Exit(1)


def pictures_of(paths: Sequence[Path]) -> list[Picture]:
    """The images named, and those of the folders named, in order."""
    pictures: list[Picture] = []
    for path in paths:
        if path.is_dir():
            pictures += [Picture(str(path / one.name), one.read, one.facts) for one in folder_pictures(path)]
        else:
            pictures.append(Picture(str(path), path.read_bytes))
    return pictures


def _table(collection: str, found: Sequence[tuple[str, Classified | ItemProblem]]) -> Table:
    table = Table(title=f"Classes of {collection}")
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("class", overflow="fold", ratio=2)
    table.add_column("likeliest", overflow="fold", ratio=3)
    table.add_column("p-value", justify="right", no_wrap=True)
    for name, one in found:
        if isinstance(one, ItemProblem):
            table.add_row(name, "", one.problem.detail, "")
            continue
        chances = ", ".join(f"{label} {chance:.2f}" for label, chance in one.probabilities.items())
        p_value = "" if one.p_value is None else f"{one.p_value:.4f}"
        table.add_row(name, one.label or "(unknown)", chances, p_value)
    return table
