"""`oddity report`: one page about a folder of images, to keep and to send round."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from oddity_client import Calibration, Collection, ImageScore, ItemProblem, NewImage, NotFound

from app.cli.client import open_client
from app.cli.console import images_progress, print_json
from app.cli.failures import CommandFailed
from app.cli.options import CollectionOption, DataOption, FolderArgument, JsonOption, ServerOption, examples
from app.cli.report_page import Case, Near, Report, page, picture
from app.cli.score import score_pictures
from app.cli.sending import Picture, folder_pictures
from app.cli.waiting import say

cli = typer.Typer()


@cli.command(
    epilog=examples(
        "oddity report new-parts/ -c parts -o report.html",
        "oddity report new-parts/ -c parts --scorer mine --worst 50 -o report.html",
    )
)
def report(
    folder: FolderArgument,
    collection: CollectionOption,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="HTML file to write.")],
    scorer: Annotated[str | None, typer.Option(help="Id of a scorer [default: dn2].")] = None,
    worst: Annotated[int, typer.Option(min=0, max=1000, help="How many of the strangest images are shown.")] = 20,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of normal images that may alarm [default: the collection's].")
    ] = None,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every image of a folder and write one self-contained page about it.

    It shows how the scores are distributed, and the strangest images with their nearest normal ones and, where the
    scorer gives them, heat maps. Nothing in it refers to anything outside. Exit code 1 when an image could not be
    scored.
    """
    pictures = folder_pictures(folder)
    asked = {"scorer": scorer, "false_alarm_rate": false_alarm_rate}
    problems: list[tuple[str, str]] = []
    found: list[tuple[int, ImageScore]] = []
    with open_client(server, data) as client, images_progress() as progress:
        place = client.collection(collection)
        bar = progress.add_task("Scoring", total=len(pictures))
        told = score_pictures(place, pictures, lambda count: progress.advance(bar, count), **asked)
        for number, (name, result) in enumerate(told):
            if isinstance(result, ItemProblem):
                problems.append((name, result.problem.detail))
            else:
                found.append((number, result))
        if not found:
            raise CommandFailed(f"None of the {len(pictures)} images could be scored; {problems[0][1]}")
        found.sort(key=lambda one: -one[1].score)
        heat = _gives_heat_maps(place, scorer)
        bar = progress.add_task("Looking closer", total=min(worst, len(found)))
        cases: list[Case] = []
        calibration = None
        for number, _ in found[: max(worst, 1)]:
            case, calibration = _case(place, pictures[number], heat, asked)
            cases.append(case)
            progress.advance(bar)
    assert calibration is not None
    made = Report(
        collection=collection,
        folder=folder.resolve().name,
        scorer=scorer or "dn2",
        made_at=datetime.now(UTC),
        calibration=calibration,
        scores=[(pictures[number].name, result) for number, result in found],
        cases=cases[:worst],
        problems=problems,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.write_text(page(made), encoding="utf-8")
    part.replace(out)
    alarms = sum(bool(result.anomalous) for _, result in found)
    if as_json:
        print_json({"collection": collection, "out": str(out), "images": len(found), "anomalous": alarms}
                   | {"problems": len(problems)})  # fmt: skip
    else:
        say(f"{collection}: {len(found)} images, {alarms} anomalous, {len(problems)} with problems; written to {out}.")
    if problems:
        raise typer.Exit(1)


def _gives_heat_maps(place: Collection, scorer: str | None) -> bool:
    if scorer is None:
        return False
    try:
        fit = place.scorer(scorer).fit
    except NotFound:  # a live one
        return False
    return fit is not None and fit.heatmap


def _case(
    place: Collection, shown: Picture, heat: bool, asked: dict[str, str | float | None]
) -> tuple[Case, Calibration]:
    """One image with everything that is shown of it."""
    content = shown.read()
    scores = place.score([NewImage(content, shown.name)], heatmap=heat or None, neighbours=3, **asked)  # type: ignore[arg-type]
    (result,) = scores.results
    if isinstance(result, ItemProblem):
        raise CommandFailed(f"{shown.name} could be scored once and not again; {result.problem.detail}")
    overlay = None if result.heatmap is None else (result.heatmap.overlay, result.heatmap.region)
    near = _near(place, result)
    return Case(shown.name, result, picture(content), overlay, near), scores.calibration


def _near(place: Collection, result: ImageScore) -> Sequence[Near]:
    return [
        Near(str(one.metadata.get("filename", one.id)), one.distance, picture(place.thumbnail(one.id)))
        for one in result.neighbours
    ]
