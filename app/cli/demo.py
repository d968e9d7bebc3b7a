"""`oddity demo`: two small collections of images made on the spot, and verdicts on others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer
from oddity_client import Client, ImageScore, ItemProblem, NewImage
from rich.table import Table

from app.cli.client import folder_settings, open_client, server_asked
from app.cli.console import images_progress, messages, print_json, results, short_number
from app.cli.demo_images import MadeImage, digit_images, texture_images
from app.cli.ingest import ingest_pictures
from app.cli.options import DataOption, JsonOption, ServerOption, called, examples
from app.cli.score import score_pictures
from app.cli.sending import Picture

SEED = 20
FALSE_ALARM_RATE = 0.05
DIGIT = "0"
DIGITS_HELD_OUT = 30
STRANGERS_OF_EACH = 3
TEXTURES, TEXTURES_HELD_OUT, DEFECTIVE = 150, 30, 27
SHOWN = 4  # rows of each kind in a table
SET_SIZE, STRANGE_IN_SET, SETS = 3, 2, 3

cli = typer.Typer()


@dataclass(frozen=True, slots=True)
class Scene:
    """One collection of the demonstration."""

    collection: str
    description: str
    bank: list[MadeImage]
    belonging: list[MadeImage]  # held out: normal, never stored
    strangers: list[MadeImage]


@cli.command(epilog=examples("oddity demo", "oddity demo --server http://127.0.0.1:8000"))
def demo(server: ServerOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Build `demo-digits` and `demo-textures`, score images that are not in them, and say what to try next.

    Everything is made on the spot with a fixed seed; running it again changes nothing.
    """
    folder = folder_settings(data).data / "demo"
    scenes = [digits_scene(), textures_scene()]
    report: dict[str, Any] = {}
    with open_client(server, data) as client:
        for scene in scenes:
            report[scene.collection] = _play(client, scene, not as_json)
    written = {scene.collection: _write_examples(scene, folder) for scene in scenes}
    if as_json:
        print_json(report)
    else:
        _say_next(server, data, written)


def digits_scene() -> Scene:
    """Zeros are normal, all other digits are strangers."""
    made = digit_images()
    normal = [one for one in made if one.kind == DIGIT]
    # The scans come writer by writer: held-out ones are drawn from all, or the two parts would not be alike.
    normal = [normal[place] for place in np.random.default_rng(SEED).permutation(len(normal))]
    strangers = [
        one for digit in "123456789" for one in [image for image in made if image.kind == digit][:STRANGERS_OF_EACH]
    ]
    return Scene(
        "demo-digits",
        f"Handwritten digits {DIGIT} (scikit-learn's scans)",
        normal[:-DIGITS_HELD_OUT],
        normal[-DIGITS_HELD_OUT:],
        strangers,
    )


def textures_scene() -> Scene:
    """Flawless weaves are normal, those with a planted defect are strangers."""
    made = texture_images(TEXTURES + TEXTURES_HELD_OUT, DEFECTIVE, SEED)
    return Scene(
        "demo-textures",
        "Woven textures, some with a planted defect",
        made[:TEXTURES],
        made[TEXTURES : TEXTURES + TEXTURES_HELD_OUT],
        made[TEXTURES + TEXTURES_HELD_OUT :],
    )


def _play(client: Client, scene: Scene, is_shown: bool) -> dict[str, Any]:
    """Load a scene, score what was held out, show it, and return what was found."""
    settings = {"false_alarm_rate": FALSE_ALARM_RATE, "description": scene.description}
    place = client.collection(scene.collection)
    about = place.put(**settings)
    asked = [*scene.belonging, *scene.strangers]
    with images_progress() as progress:
        bar = progress.add_task(scene.collection, total=len(scene.bank) + len(asked))
        ingest_pictures(client, scene.collection, _pictures(scene.bank), lambda count: progress.advance(bar, count))
        told = [
            result
            for _, result in score_pictures(place, _pictures(asked), lambda count: progress.advance(bar, count))
            if not isinstance(result, ItemProblem)
        ]
    belonging, strangers = told[: len(scene.belonging)], told[len(scene.belonging) :]
    sets = _score_sets(client, scene)
    found = {
        "weights": about.weights_label,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "bank": len(scene.bank),
        "held_out": {"images": len(belonging), "alarms": sum(bool(one.anomalous) for one in belonging)},
        "strangers": {"images": len(strangers), "alarms": sum(bool(one.anomalous) for one in strangers)},
        "sets": sets,
    }
    if is_shown:
        _show(scene, belonging, strangers, found)
    return found


def _pictures(made: Sequence[MadeImage]) -> list[Picture]:
    return [Picture(one.name, partial(bytes, one.data)) for one in made]


def _score_sets(client: Client, scene: Scene) -> list[dict[str, Any]]:
    """Sets of three images: all belonging, then with two strangers among them."""
    place = client.collection(scene.collection)
    scored = []
    for strange in (0, STRANGE_IN_SET):
        for number in range(SETS):
            normal = scene.belonging[number * SET_SIZE : (number + 1) * SET_SIZE - strange]
            members = [*normal, *scene.strangers[number * strange :][:strange]]
            answer = place.score_group([NewImage(one.data, one.name) for one in members], pooling="mean")
            facts = {"score": answer.score, "p_value": answer.p_value, "anomalous": answer.anomalous}
            rate = answer.calibration.false_alarm_rate
            scored.append({"members": len(members), "strangers": strange, **facts, "false_alarm_rate": rate})
    return scored


def _show(scene: Scene, belonging: list[ImageScore], strangers: list[ImageScore], found: dict[str, Any]) -> None:
    console = results()
    table = Table(title=f"{scene.collection}: {scene.description}")
    for name, how in (
        ("image", "left"),
        ("shows", "left"),
        ("score", "right"),
        ("p-value", "right"),
        ("verdict", "left"),
    ):
        table.add_column(name, justify=how)  # type: ignore[arg-type]
    table.add_column("nearest normal")
    kinds: dict[str, int] = {}
    for made, result in zip([*scene.belonging, *scene.strangers], [*belonging, *strangers], strict=True):
        kinds[made.kind] = kinds.get(made.kind, 0) + 1
        is_belonging = made.kind in (DIGIT, "flawless")
        if kinds[made.kind] > (SHOWN if is_belonging or scene.collection == "demo-textures" else 1):
            continue
        near = Path(result.neighbours[0].metadata["filename"]).stem
        name = Path(made.name).stem
        table.add_row(
            name, made.kind, short_number(result.score), f"{result.p_value:.3f}", _verdict(result.anomalous), near
        )
    console.print(table)
    if found["sets"]:
        rate = found["sets"][0]["false_alarm_rate"]
        groups = Table(title=f"sets of {SET_SIZE} images, each scored as one at a false-alarm rate of {rate:.1%}")
        for name in ("strangers among them", "score", "p-value", "verdict"):
            groups.add_column(name, justify="right" if name != "verdict" else "left")
        for one in found["sets"]:
            p_value = "" if one["p_value"] is None else f"{one['p_value']:.3f}"
            groups.add_row(str(one["strangers"]), short_number(one["score"]), p_value, _verdict(one["anomalous"]))
        console.print(groups)
    console.print(
        f"Bank of {found['bank']} normal images. Of {found['held_out']['images']} held-out normal images "
        f"{found['held_out']['alarms']} alarmed (asked for: {FALSE_ALARM_RATE:.0%}); "
        f"of {found['strangers']['images']} strangers {found['strangers']['alarms']} were found.",
        highlight=False,
    )
    if found["weights"] == "stand-in":
        console.print(
            "[yellow]The network's weights are the untrained stand-in: the false-alarm rate holds, "
            "but how many strangers are found says nothing about what trained weights find.[/]",
            highlight=False,
        )
    console.print()


def _verdict(anomalous: bool | None) -> str:
    return {True: "[red]strange[/]", False: "[green]belongs[/]", None: "too few to say"}[anomalous]


def _write_examples(scene: Scene, folder: Path) -> list[Path]:
    """One belonging image and one stranger as files, for trying out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for made in (scene.belonging[0], scene.strangers[0]):
        path = folder / made.name
        path.write_bytes(made.data)
        paths.append(path)
    return paths


def _say_next(server: str | None, data: Path | None, written: dict[str, list[Path]]) -> None:
    asked = server_asked(server, data)
    url = asked or "http://127.0.0.1:8000"
    say = messages()

    def line(text: str) -> None:
        say.print(text, highlight=False, markup=False, soft_wrap=True)

    line("What to try next:")
    if asked is None:
        line(f"  oddity serve{'' if data is None else f' --data {data}'}")
    digits, textures = (" ".join(f"-F files=@{path}" for path in paths) for paths in written.values())
    line("Do they belong?")
    line(f"  curl {digits} '{url}/v1/collections/demo-digits/anomaly?false_alarm_rate={FALSE_ALARM_RATE}'")
    line("What looks like it?")
    line(f"  curl -F files=@{written['demo-digits'][1]} '{url}/v1/collections/demo-digits/query?k=5'")
    line("Does this set belong?")
    line(f"  curl {textures} '{url}/v1/collections/demo-textures/groups/anomaly?pooling=mean'")
    line("Your own images:")
    where = f" --server {server}" if server else f" --data {data}" if data else ""
    line(f"  {called()} ingest DIR --collection mine{where}")
    line(f"  {called()} score DIR --collection mine --out scores.csv{where}")
