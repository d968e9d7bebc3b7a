"""`oddity pretrain`: image folders to packed data, a training run, figures, a file of weights with a card."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from app.cli.collections import named_value
from app.cli.console import print_json, steps_progress
from app.cli.failures import CommandFailed
from app.cli.options import JsonOption, examples
from app.cli.waiting import say
from app.errors import faults_of
from benchmarks.setting import setting
from models.backbones.embedder import EmbeddingSpec
from models.backbones.loader import load_embedder, weights_ranges
from models.errors import ModelsError
from models.images import ImageLimits
from models.methods.few_shot_lr import FewShotLRParams
from models.preprocessing import Preprocessing
from models.pretraining import (
    NEVER_TRAINED_ON,
    DataRecord,
    ImageFolder,
    Int8Record,
    PretrainingConfig,
    StepBudget,
    TimeBudget,
    WeightsCard,
    WeightsFacts,
    backbone_weights,
    embedded_folder,
    export_weights,
    few_shot_accuracy,
    make_targets,
    measured_card,
    one_vs_rest_auc,
    open_targets,
    open_training_set,
    pack_images,
    pretrain,
    read_checkpoint,
)
from models.pretraining.teacher import OpenVinoTeacher

CONFIG = "config.json"
INTERRUPTED = 130

cli = typer.Typer(no_args_is_help=True, help="Train a backbone on folders of images, measure it, and export it.")

SetArgument = Annotated[Path, typer.Argument(metavar="SET", file_okay=False, help="Folder of the packed images.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", file_okay=False, help="Folder of the run.")]


@cli.command(
    epilog=examples("oddity pretrain pack photos/ --terms 'our own photographs' --side 64 --out set64"),
)
def pack(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", exists=True, file_okay=False, help="Folders that hold one folder for each class."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder to write the packed images to.")],
    terms: Annotated[
        list[str], typer.Option(help="Under which the images may be used; once for all folders, or once for each.")
    ],
    side: Annotated[int, typer.Option(min=16, max=1024, help="Pixels of the side of the packed squares.")] = 64,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A class to leave out, beside those that figures are measured on.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use the first N images of each class by path [default: all].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode folders of images once, into one array that a training step reads without waiting.

    The same files give the same set. Images that cannot be decoded are left out and counted.
    """
    if len(terms) not in (1, len(folders)):
        raise CommandFailed(f"`--terms` must be given once, or once for each folder; got {len(terms)}.", 2)
    said = terms * len(folders) if len(terms) == 1 else terms
    sources = [ImageFolder(path, path.resolve().name, text) for path, text in zip(folders, said, strict=True)]
    with _sentences(), _bar("Packing") as advance:
        packed = pack_images(
            sources,
            out,
            side=side,
            excluded=NEVER_TRAINED_ON | set(exclude or ()),
            per_class=limit,
            progress=advance,
        )
    unreadable = sum(source.unreadable for source in packed.sources)
    told = {"out": str(out), "images": len(packed), "classes": len(packed.classes), "unreadable": unreadable}
    if as_json:
        print_json({**told, "digest": packed.digest})
    else:
        say(f"{out}: {len(packed)} images of {len(packed.classes)} classes; {unreadable} could not be decoded.")


@cli.command(
    epilog=examples("oddity pretrain targets set64 --teacher mobilenet_v2.tflite --image-size 128 --out targets")
)
def targets(
    training_set: SetArgument,
    teacher: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="A TFLite or OpenVINO classifier with a mean before its head."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder to write the answers to.")],
    image_size: Annotated[int, typer.Option(min=16, max=1024, help="Side at which the teacher is asked.")] = 128,
    width: Annotated[int, typer.Option(min=1, help="Principal components kept of its features.")] = 384,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Images asked about at once.")] = 32,
) -> None:
    """Ask a teacher about every packed image, once; `run --targets` learns from what it says."""
    with _sentences(), _bar("Asking") as advance:
        asked = OpenVinoTeacher(teacher, image_size=image_size, batch=batch, threads=len(os.sched_getaffinity(0)))
        made = make_targets(open_training_set(training_set), asked, out, width=width, batch=batch, progress=advance)
    say(f"{out}: answers of {made.teacher}; its features keep {made.kept_variance:.1%} of their variance.")


@cli.command(
    epilog=examples(
        "oddity pretrain run set64 run1 --hours 2",
        "oddity pretrain run set64 run1 --steps 20000 --targets targets --seed 1 --set batch=96",
    )
)
def run(
    training_set: SetArgument,
    run_folder: RunArgument,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole run: the same result anywhere.")] = None,
    hours: Annotated[
        float | None, typer.Option(min=0, help="Or hours of the whole run, interruptions left out.")
    ] = None,
    targets: Annotated[Path | None, typer.Option(file_okay=False, help="Folder of a teacher's answers.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides first weights, order and views.")] = 0,
    backbone: Annotated[str, typer.Option(help="torchvision ResNet to train.")] = "resnet18",
    recipe: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="Any other part of the recipe; repeat it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train, or go on from the checkpoint in RUN. Ctrl-C writes a checkpoint first; the exit code is 130 then.

    RUN gets config.json, log.jsonl (a line every few steps) and checkpoint.pt. Without --targets the classes' labels
    alone are learnt.
    """
    if (steps is None) == (hours is None):
        raise CommandFailed("Give --steps or --hours, one of the two.", 2)
    alone = {} if targets is not None else {"soft_weight": 0.0, "feature_weight": 0.0, "label_weight": 1.0}
    given = {
        "training_set": training_set, "run_folder": run_folder, "targets": targets, "seed": seed, "backbone": backbone,
        "budget": StepBudget(steps=steps) if steps is not None else TimeBudget(seconds=3600 * (hours or 0)),
        "threads": len(os.sched_getaffinity(0)), **alone, **dict(map(named_value, recipe or [])),
    }  # fmt: skip
    try:
        config = PretrainingConfig.model_validate(given)
    except ValidationError as error:
        first = faults_of(error.errors())[0]
        raise CommandFailed(f"`{first['where']}` of the recipe: {first['what']}.", 2) from error
    run_folder.mkdir(parents=True, exist_ok=True)
    if not (run_folder / "checkpoint.pt").exists():  # else it may be another recipe's, which is refused below
        _write_config(config)
    with _sentences(), _stopping() as is_stopped, _bar("Training") as advance:
        tick = _ticking(config, advance)
        result = pretrain(config, clock=time.monotonic, should_stop=lambda: tick() or is_stopped())
    _write_config(config)
    told = {"run": str(run_folder), "finished": result.is_finished, "steps": result.steps, "images": result.images}
    if as_json:
        print_json({**told, "seconds": round(result.elapsed_s, 1)})
    else:
        state = "is finished" if result.is_finished else "is stopped; the same command goes on"
        say(f"{run_folder}: {state}, {result.steps} steps, {result.images} images in {result.elapsed_s:.0f} s.")
    if not result.is_finished:
        raise typer.Exit(INTERRUPTED)


@cli.command(
    epilog=examples(
        "oddity pretrain export run1 --out weights/mine.safetensors --image-size 64 --terms 'our own' "
        "--weakness 'has seen parts of one line only'"
    )
)
def export(
    run_folder: RunArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", dir_okay=False, help="File of the weights; card.json goes beside.")
    ],
    terms: Annotated[str, typer.Option(help="Under which the weights may be used, in a sentence.")],
    weakness: Annotated[list[str], typer.Option(help="What users must know it does badly; repeat it.")],
    image_size: Annotated[int, typer.Option(min=32, max=1024, help="Side that is served by default.")] = 224,
    part: Annotated[
        Literal["average", "student"], typer.Option(help="The running average of the weights, or the last ones.")
    ] = "average",
    as_json: JsonOption = False,
) -> None:
    """Write the trained weights as safetensors in half precision, with a card that says where they come from."""
    with _sentences():
        checkpoint = read_checkpoint(run_folder)
        card = export_weights(
            backbone_weights(checkpoint[part]),
            out,
            backbone=(config := _config(run_folder)).backbone,
            facts=_facts(config, checkpoint, terms, weakness, image_size),
        )
    if as_json:
        print_json(card)
    else:
        say(f"{out}: {card.bytes:,} bytes, sha256 {card.sha256[:16]}…; its card is {out.parent / 'card.json'}.")


@cli.command(
    epilog=examples("oddity pretrain evaluate weights/mine.safetensors --bank photos/train --queries photos/test")
)
def evaluate(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", exists=True, dir_okay=False, help="An exported file.")],
    bank: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of classes: each is normal once…")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="…and these, of the same classes, are asked about."),
    ] = None,
    few_shot: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of classes nothing was trained on.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="The architecture of the weights.")] = "resnet18",
    image_size: Annotated[int | None, typer.Option(min=32, max=1024, help="Side [default: the card's].")] = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="Images of each class [default: all].")] = None,
    ways: Annotated[int, typer.Option(min=2, help="Classes of an episode.")] = 5,
    asked: Annotated[int, typer.Option(min=1, help="Images asked about of each class of an episode.")] = 15,
    episodes: Annotated[int, typer.Option(min=1, help="Few-shot episodes.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Decides the episodes.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure the weights: one class normal against the others, and classes learnt from one and from five images.

    The figures go into the card beside the weights, where there is one.
    """
    if (bank is None) != (queries is None) or (bank is None and few_shot is None):
        raise CommandFailed("Give --bank with --queries, or --few-shot, or all three.", 2)
    size = image_size or _card(weights, backbone).image_size
    figures: dict[str, float] = {}
    with _sentences(), _bar("Embedding") as advance:
        embedder = load_embedder(
            EmbeddingSpec(backbone=backbone, weights=f"file:{weights.resolve()}", image_size=size),
            weights_folder=weights.parent,
            threads=len(os.sched_getaffinity(0)),
        )

        def vectors(folder: Path) -> Any:
            return embedded_folder(embedder, folder, limits=ImageLimits(), per_class=per_class, progress=advance)

        if bank is not None and queries is not None:
            areas = one_vs_rest_auc(vectors(bank), vectors(queries))
            figures[f"{bank.resolve().parent.name}_one_vs_rest_auc_{size}px"] = round(
                sum(areas.values()) / len(areas), 4
            )
        if few_shot is not None:
            held = vectors(few_shot)
            for shots in (1, 5):
                found = few_shot_accuracy(
                    held, seed=seed, ways=ways, shots=shots, queries=asked, episodes=episodes, c=FewShotLRParams().c
                )
                figures[f"{few_shot.resolve().name}_{ways}way_{shots}shot_{size}px"] = round(found.mean, 4)
        if (weights.parent / "card.json").is_file():
            measured_card(weights.parent / "card.json", backbone=backbone, figures=figures)
    if as_json:
        print_json(figures)
    else:
        for name, value in figures.items():
            say(f"{name}: {value:.4f}")


@cli.command(epilog=examples("oddity pretrain ranges weights/mine.safetensors"))
def ranges(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", exists=True, dir_okay=False, help="An exported file.")],
    backbone: Annotated[str, typer.Option(help="The architecture of the weights.")] = "resnet18",
    as_json: JsonOption = False,
) -> None:
    """Measure how far activations reach, so that the weights are served in 8-bit integers, the same everywhere.

    The ranges go into the card beside the weights; collections that were begun in floating point keep it.
    """
    card = _card(weights, backbone)
    with _sentences():
        found = weights_ranges(weights, backbone, Preprocessing(card.image_size, mean=card.mean, std=card.std))
        told = Int8Record(ranges=found, measured_by=f"oddity pretrain ranges {weights.name}")
        measured_card(weights.parent / "card.json", backbone=backbone, figures={}, int8=told)
    if as_json:
        print_json(found)
    else:
        say(f"{weights}: {len(found)} ranges are in {weights.parent / 'card.json'}.")


def _facts(
    config: PretrainingConfig, checkpoint: dict[str, Any], terms: str, weakness: list[str], image_size: int
) -> WeightsFacts:
    packed = open_training_set(config.training_set)
    teachers = []
    if config.targets is not None:
        told = open_targets(config.targets, packed)
        teachers.append(
            DataRecord(name=f"{told.teacher}, sha256 {told.teacher_sha256}", terms="its own", images=len(packed))
        )
    about, step, seconds = setting(), int(checkpoint["step"]), float(checkpoint["elapsed_s"])
    budget = f"--steps {step}" if isinstance(config.budget, StepBudget) else f"--hours {seconds / 3600:.4g}"
    return WeightsFacts(
        image_size=image_size,
        data=tuple(DataRecord(name=one.name, terms=one.terms, images=one.images) for one in packed.sources),
        excluded_classes=tuple(sorted({name for one in packed.sources for name in one.excluded})),
        teachers=tuple(teachers),
        terms=terms,
        recipe={**config.recipe(), "training_set": packed.digest},
        command=f"oddity pretrain run SET RUN {budget} --seed {config.seed}, with the recipe of this card",
        commit=about["commit"] or f"oddity {about['versions']['oddity']}",
        trained_on=f"{datetime.fromtimestamp((config.run_folder / 'checkpoint.pt').stat().st_mtime, UTC):%Y-%m-%d}",
        hours=round(seconds / 3600, 4),
        images_seen=step * config.batch,
        hardware=f"{about['machine']['processor']}, {config.threads} threads, {config.device}",
        weaknesses=tuple(weakness),
    )


def _write_config(config: PretrainingConfig) -> None:
    (config.run_folder / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _config(run_folder: Path) -> PretrainingConfig:
    try:
        told = json.loads((run_folder / CONFIG).read_text(encoding="utf-8"))
        return PretrainingConfig.model_validate({**told, "run_folder": run_folder})
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{run_folder / CONFIG} must be what `oddity pretrain run` wrote; {error}.") from error


def _card(weights: Path, backbone: str) -> WeightsCard:
    path = weights.parent / "card.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["weights"]
        return next(WeightsCard.model_validate(one) for one in entries if one.get("backbone") == backbone)
    except (OSError, ValueError, LookupError, StopIteration) as error:
        raise CommandFailed(f"There is no card of {backbone} at {path}; give --image-size.", 2) from error


def _ticking(config: PretrainingConfig, advance: Callable[[int, int], None]) -> Callable[[], bool]:
    """To be called before each step: moves the bar, and never stops the run."""
    step, spent = 0, 0.0
    if (config.run_folder / "checkpoint.pt").is_file():
        saved = read_checkpoint(config.run_folder)
        step, spent = int(saved["step"]), float(saved["elapsed_s"])
    started = time.monotonic()

    def tick() -> bool:
        nonlocal step
        if isinstance(config.budget, StepBudget):
            advance(step, config.budget.steps)
        else:
            advance(round(spent + time.monotonic() - started), round(config.budget.seconds))
        step += 1
        return False

    return tick


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether the run was asked to stop; the first Ctrl-C asks, a second one breaks off."""
    is_asked = False

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler is given
        nonlocal is_asked
        is_asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: is_asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    with steps_progress() as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except ModelsError as error:
        raise CommandFailed(str(error)) from error
