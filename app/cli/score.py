"""`oddity score`: a CSV of scores, p-values, verdicts and nearest images."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from oddity_client import Calibration, Collection, ImageScore, ItemProblem

from app.cli.client import open_client
from app.cli.console import images_progress, messages, print_json
from app.cli.options import CollectionOption, DataOption, FolderArgument, JsonOption, ServerOption, examples
from app.cli.promise import shortfalls
from app.cli.sending import Picture, answers, batches, folder_pictures, loaded

cli = typer.Typer()


@cli.command(
    epilog=examples(
        "oddity score new-parts/ -c parts -o scores.csv",
        "oddity score new-parts/ -c parts -o - --false-alarm-rate 0.05",
        "oddity score new-parts/ -c parts -o scores.csv --scorer mine",
    )
)
def score(
    folder: FolderArgument,
    collection: CollectionOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write; - for standard output.")],
    server: ServerOption = None,
    data: DataOption = None,
    scorer: Annotated[str | None, typer.Option(help="Id of a scorer [default: dn2].")] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of normal images that may alarm [default: the collection's].")
    ] = None,
    k: Annotated[int | None, typer.Option(help="Nearest normal images averaged [default: the collection's].")] = None,
    neighbours: Annotated[int, typer.Option(min=0, max=100, help="Nearest normal images listed in each row.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Score every image of a folder against a collection, one CSV row for each in a stable order.

    What it writes beside them says so when the normal images are too few for a verdict, or for the rate asked for.

    Columns: path, score, p_value, anomalous, then id, distance and file of each nearest normal image, then
    problem. Exit code 1 when any image could not be scored.
    """
    pictures = folder_pictures(folder)
    asked = {"scorer": scorer, "k": k, "false_alarm_rate": false_alarm_rate, "neighbours": neighbours}
    counts = {"images": 0, "anomalous": 0, "problems": 0}
    calibrations: list[Calibration] = []
    with open_client(server, data) as client, _writable(out) as file, images_progress() as progress:
        bar = progress.add_task("Scoring", total=len(pictures))
        writer = csv.writer(file)
        writer.writerow(_head(neighbours))
        for name, result in score_pictures(
            client.collection(collection),
            pictures,
            lambda count: progress.advance(bar, count),
            calibrated=calibrations.append,
            **asked,
        ):
            writer.writerow(_row(name, result, neighbours))
            counts["images"] += 1
            counts["anomalous"] += not isinstance(result, ItemProblem) and bool(result.anomalous)
            counts["problems"] += isinstance(result, ItemProblem)
    if as_json and str(out) != "-":
        print_json(
            {
                "collection": collection,
                "out": str(out),
                **counts,
                "calibration": calibrations[-1] if calibrations else None,
            }
        )
    else:
        text = f"{counts['images']} images, {counts['anomalous']} anomalous, {counts['problems']} with problems"
        messages().print(f"{collection}: {text}; written to {out}.", highlight=False, markup=False)
        for one in shortfalls(calibrations[-1]) if calibrations else ():
            messages().print(one, highlight=False, markup=False)
    if counts["problems"]:
        raise typer.Exit(1)


def score_pictures(
    collection: Collection,
    pictures: Sequence[Picture],
    advance: Callable[[int], None] | None = None,
    **asked: Any,
) -> Iterator[tuple[str, ImageScore | ItemProblem]]:
    """Name and result of each picture in order, as POST /anomaly gives it."""
    for batch in batches(loaded(pictures)):
        told = answers(lambda images: collection.score_all(images, **asked), batch)
        yield from zip((image.picture.name for image in batch), told, strict=True)
        if advance is not None:
            advance(len(batch))


def _head(neighbours: int) -> list[str]:
    near = [
        name
        for place in range(1, neighbours + 1)
        for name in (f"neighbour_{place}", f"distance_{place}", f"file_{place}")
    ]
    return ["path", "score", "p_value", "anomalous", *near, "problem"]


def _row(name: str, result: ImageScore | ItemProblem, neighbours: int) -> list[Any]:
    if isinstance(result, ItemProblem):
        return [name, None, None, None, *[""] * (3 * neighbours), result.problem.detail]
    near: list[Any] = []
    for one in result.neighbours[:neighbours]:
        near += [one.id, one.distance, one.metadata.get("filename", "")]
    near += [""] * (3 * neighbours - len(near))
    verdict = None if result.anomalous is None else json.dumps(result.anomalous)
    return [name, result.score, result.p_value, verdict, *near, ""]


@contextmanager
def _writable(out: Path) -> Iterator[IO[str]]:
    """A file that takes its name only when it is complete."""
    if str(out) == "-":
        yield sys.stdout
        return
    part = out.with_name(out.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            yield file
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
