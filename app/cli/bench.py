"""`oddity bench`: measurements on folders of labelled images."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import typer
from rich.markdown import Markdown
from rich.progress import Progress, TaskID

from app.cli.client import folder_settings, open_client
from app.cli.console import images_progress, messages, print_json, results
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, FolderArgument, JsonOption, ServerOption
from app.cli.sending import image_files
from app.embedders import Embedders
from app.settings import Settings
from benchmarks.accuracy import PROTOCOLS, AccuracyPlan, measure_accuracy
from benchmarks.backbones import (
    BackbonesPlan,
    ServedVectors,
    TeacherVectors,
    Vectors,
    backbones_text,
    measure_backbones,
    read_folder,
)
from benchmarks.checkouts import CheckoutsPlan, checkouts_text, measure_checkouts
from benchmarks.crops import write_crops
from benchmarks.decoding_cost import DecodingPlan, decoding_text, measure_decoding
from benchmarks.embedding import embed_files, kinds_of
from benchmarks.errors import BenchmarkRefused
from benchmarks.false_alarms import WAYS, WAYS_FOR_SETS, Plan, measure_pool, report_text, write
from benchmarks.few_shot import FewShotPlan, class_files, few_shot_text, measure_few_shot
from benchmarks.filters import ROWS as FILTER_ROWS
from benchmarks.filters import filters_text
from benchmarks.filters import run as measure_filters
from benchmarks.folders import cases, read_layout
from benchmarks.heat_maps import HeatMapsPlan, heat_maps_text, measure_heat_maps
from benchmarks.hostile import HostilePlan, hostile_text, measure_hostile
from benchmarks.job_pressure import PressurePlan, measure_pressure, pressure_text
from benchmarks.learned_embeddings import LearnedPlan, learned_text, measure_learned
from benchmarks.made_folders import write_digits, write_textures
from benchmarks.methods import MethodsPlan, measure_methods
from benchmarks.methods_report import methods_text, setting_sentence, write_cards
from benchmarks.overload import OverloadPlan, measure_overload, overload_text
from benchmarks.precisions import PrecisionsPlan, measure_precisions, precisions_text
from benchmarks.reference import KS, METRICS, compare, files_needed, reference_text
from benchmarks.report import accuracy_text, write_report
from benchmarks.scale import PARTS as SCALE_PARTS
from benchmarks.scale import ScalePlan, measure_scale, scale_text
from benchmarks.search_speed import PARTS, SYSTEMS
from benchmarks.search_speed import run as run_search
from benchmarks.setting import setting
from benchmarks.speed import SpeedPlan, measure_speed, speed_text
from benchmarks.supervision import Supervision
from models.backbones.embedder import EmbeddingSpec
from models.backbones.engine import FeaturePooling
from models.errors import ModelsError

SEED = 0
DEADLINE_S = 3600.0  # the longest that the setting allows
USUAL = Plan()
DIGITS_LIMIT = 60  # of each digit and part in `bench reference` on made images

cli = typer.Typer(no_args_is_help=True)


@cli.callback()
def bench(context: typer.Context) -> None:
    """Measure accuracy, kept promises, methods, search, speed and limits."""
    # A benchmark that is told to end ends its servers first, as after Ctrl-C: Python alone would leave them running.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    context.call_on_close(lambda: signal.signal(signal.SIGTERM, before))


FolderToWrite = Annotated[Path, typer.Argument(metavar="DIR", help="Where they are written.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the reports and of cached vectors.")]
WeightsOption = Annotated[
    str | None, typer.Option(help="embedded, stand-in, torchvision or file:PATH [default: the service's].")
]
BackboneOption = Annotated[str | None, typer.Option(help="torchvision ResNet [default: the service's].")]
SizeOption = Annotated[int | None, typer.Option(help="Side of the network's input [default: the weights' own].")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Files of each kind in train and in test [default: all].")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of every draw.")]


@cli.command()
def accuracy(
    folder: FolderArgument,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    k: Annotated[int, typer.Option(min=1, max=64, help="Nearest normal images averaged.")] = 2,
    metric: Annotated[str, typer.Option(help="cosine or l2.")] = "cosine",
    normalize: Annotated[bool, typer.Option("--normalize", help="With l2: unit length first.")] = False,
    bank: Annotated[int | None, typer.Option(min=2, help="Normal images of each class [default: all].")] = None,
    limit: LimitOption = None,
    protocol: Annotated[list[str] | None, typer.Option(help="images, sets or contaminated; repeat it.")] = None,
    together: Annotated[int, typer.Option(min=1, help="Classes that are normal together.")] = 1,
    normal: Annotated[list[str] | None, typer.Option(help="A normal class of one single case; repeat it.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="False-alarm rate to check; repeat it.")] = None,
    set_size: Annotated[list[int] | None, typer.Option(help="Images in a set; repeat it.")] = None,
    fraction: Annotated[float, typer.Option(help="Share of strangers in a strange set.")] = 0.2,
    pooling: Annotated[list[str] | None, typer.Option(help="mean, max, concat or excess; repeat it.")] = None,
    contamination: Annotated[float, typer.Option(help="Share of strangers in a contaminated bank.")] = 0.1,
    dropped: Annotated[float, typer.Option(help="Share that cleaning drops.")] = 0.15,
    seed: SeedOption = SEED,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure ranking and kept promises on DIR: train/<class>, test/<class>, or train/good, test/good, test/<defect>.

    Writes accuracy-DIR.json and accuracy-DIR.md. Vectors are kept under the output folder by sha256 and fingerprint.
    """
    whole = AccuracyPlan()
    plan = AccuracyPlan(
        protocols=tuple(protocol or PROTOCOLS),
        k=k,
        metric=metric,
        normalize=normalize,
        bank=bank,
        limit=limit,
        seed=seed,
        rates=tuple(rate or whole.rates),
        together=together,
        normal=tuple(normal or ()),
        set_sizes=tuple(set_size or whole.set_sizes),
        fraction=fraction,
        poolings=tuple(pooling or whole.poolings),
        contamination=contamination,
        dropped=dropped,
    )
    settings = folder_settings(data)
    _run_accuracy(folder, settings, _specification(settings, weights, backbone, image_size), plan, out, as_json)


@cli.command()
def reference(
    folder: FolderArgument,
    normal: Annotated[str | None, typer.Option(help="The normal class [default: the first].")] = None,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    limit: LimitOption = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Send test images once and score them by id, six times faster.")
    ] = False,
    out: OutOption = Path(".bench"),
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare served scores with scikit-learn's on the same vectors, for k = 1, 2, 5 and both metrics.

    The bank and the test images go through HTTP, to the server named or to a service on a folder of its own. Exit code
    1 when any ROC-AUC differs by 0.0005 or more.
    """
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    _run_reference(folder, settings, specification, normal, limit, stored, out, server, data, as_json)


@cli.command("false-alarms")
def false_alarms(
    folders: Annotated[list[Path], typer.Argument(help="Folders of images; each, with all below it, is one pool.")],
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    splits: Annotated[int, typer.Option(min=2, help="Random splits of each pool.")] = USUAL.splits,
    set_size: Annotated[int, typer.Option(min=1, help="Images in a set.")] = USUAL.set_size,
    k: Annotated[int, typer.Option(min=1, max=64, help="Nearest normal images averaged.")] = USUAL.k,
    pool_max: Annotated[int, typer.Option(min=20, help="Images of a pool that are used.")] = USUAL.pool_max,
    sets_of_a_kind: Annotated[
        bool, typer.Option("--sets-of-a-kind", help="Sets alone, each of images that lie in one folder.")
    ] = False,
    seed: SeedOption = SEED,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
) -> None:
    """Check the promised false-alarm rates over random splits of each folder's images, all of them normal.

    Exit code 1 when a promise is broken. Writes false_alarms.json and false_alarms.md.
    """
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    plan = Plan(splits=splits, set_size=set_size, k=k, pool_max=pool_max, seed=seed)
    measured = []
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        for folder in folders:
            files = image_files(folder)
            bar = progress.add_task(f"Embedding {folder.name}", total=len(files))
            pool, _ = embed_files(files, embedders, specification, out / "vectors", partial(progress.advance, bar))
            say = partial(_describe, progress, bar)
            kinds = kinds_of(pool) if sets_of_a_kind else None
            ways = WAYS_FOR_SETS if sets_of_a_kind else WAYS
            measured.append(measure_pool(pool.vectors, plan, name=folder.name, ways=ways, kinds=kinds, progress=say))
        write(measured, plan, out)
    results().print(Markdown("\n".join(report_text(measured))))
    if not all(row.passes for pool in measured for row in pool.rows):
        raise CommandFailed("A promised false-alarm rate was broken; the report says which.")


@cli.command("few-shot")
def few_shot(
    folder: FolderArgument,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    ways: Annotated[int, typer.Option(min=2, help="Classes of an episode.")] = FewShotPlan().ways,
    shots: Annotated[
        list[int] | None, typer.Option(min=1, help="Images of a class; repeat it [default: 1, 5].")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Images of a class asked about.")] = FewShotPlan().queries,
    episodes: Annotated[int, typer.Option(min=1)] = FewShotPlan().episodes,
    rate: Annotated[list[float] | None, typer.Option(help="Rate of false `unknown` to check; repeat it.")] = None,
    c: Annotated[
        list[float] | None, typer.Option(min=1e-6, max=1e6, help="Of few_shot_lr, as scikit-learn's C; repeat it.")
    ] = None,
    limit: LimitOption = None,
    many_classes: Annotated[int, typer.Option(min=2, help="Classes of the timed fit.")] = FewShotPlan().many_classes,
    seed: SeedOption = SEED,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure few-shot classification on DIR/<class>: accuracy, how sure, images of no class, time of a fit.

    Writes few_shot-DIR.json and few_shot-DIR.md.
    """
    whole = FewShotPlan()
    plan = FewShotPlan(
        ways=ways,
        shots=tuple(shots or whole.shots),
        queries=queries,
        episodes=episodes,
        rates=tuple(rate or whole.rates),
        limit=limit,
        seed=seed,
        c=tuple(c or whole.c),
        many_classes=many_classes,
    )
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        bar = progress.add_task(f"Embedding {folder.name}", total=sum(map(len, class_files(folder, limit).values())))
        found = measure_few_shot(
            folder,
            embedders,
            specification,
            plan,
            out / "vectors",
            advance=lambda count: progress.advance(bar, count),
            say=partial(_describe, progress, bar),
        )
    _write(found, out, f"few_shot-{folder.name}", few_shot_text(found), as_json)


@cli.command()
def embeddings(
    folder: FolderArgument,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    loss: Annotated[list[str] | None, typer.Option(help="Loss; repeat it [default: contrastive, triplet].")] = None,
    trials: Annotated[int, typer.Option(min=1, max=200, help="Settings tried for each loss.")] = LearnedPlan().trials,
    folds: Annotated[int, typer.Option(min=2, max=10, help="Parts of the classes to choose by.")] = LearnedPlan().folds,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings behind the interval.")] = LearnedPlan().seeds,
    width: Annotated[int, typer.Option(min=16, max=1024, help="Dimensions of each fold.")] = LearnedPlan().width,
    epochs: Annotated[int, typer.Option(min=1, max=500, help="Passes of a training.")] = LearnedPlan().epochs,
    limit: LimitOption = None,
    seed: SeedOption = SEED,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure learned embeddings on DIR/<class>: P@1, R-precision and MAP@R before and after, on classes kept apart.

    Every method and loss gets the same budget. Writes embeddings-DIR.json and embeddings-DIR.md.
    """
    plan = LearnedPlan(
        losses=tuple(loss or LearnedPlan().losses),
        trials=trials,
        folds=folds,
        seeds=seeds,
        width=width,
        epochs=epochs,
        limit=limit,
        seed=seed,
    )
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        bar = progress.add_task(f"Embedding {folder.name}", total=sum(map(len, class_files(folder, limit).values())))
        found = measure_learned(
            folder,
            embedders,
            specification,
            plan,
            out / "vectors",
            advance=lambda count: progress.advance(bar, count),
            say=partial(_describe, progress, bar),
        )
    _write(found, out, f"embeddings-{folder.name}", learned_text(found), as_json)


@cli.command()
def jobs(
    images: Annotated[int, typer.Option(min=10, help="Images of the collection.")] = PressurePlan().images,
    scores: Annotated[int, typer.Option(min=2, help="Scores of a turn.")] = PressurePlan().scores,
    turns: Annotated[int, typer.Option(min=1, help="Turns without, and turns with a job.")] = PressurePlan().turns,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Measure how much a running job slows down a score: p50 and p99 with it over those without, in one run.

    Starts a server of its own on a folder of its own. Exit code 1 when p99 more than doubles.
    """
    plan = PressurePlan(images=images, scores=scores, turns=turns)
    with _sentences(), images_progress() as progress:
        bar = progress.add_task("Starting a server", total=None)
        found = measure_pressure(plan, say=partial(_describe, progress, bar))
    _write(found, out, "job_pressure", pressure_text(found), as_json)
    if not found["is_within_bar"]:
        raise CommandFailed(f"With a job beside it, p99 of a score is {found['ratio']['p99']:.1f} times as long.")


@cli.command()
def search(
    rows: Annotated[int, typer.Option(min=1000, help="Rows that structures are built over.")] = 100_000,
    exact_rows: Annotated[int, typer.Option(min=1000, help="Rows that are searched exactly.")] = 100_000,
    parts: Annotated[str, typer.Option(help=f"Some of {', '.join(PARTS)}, separated by commas.")] = ",".join(PARTS),
    vectors: Annotated[
        Path | None, typer.Option(exists=True, help="A .npy of embeddings in place of drawn rows.")
    ] = None,
    strange: Annotated[
        list[Path] | None,
        typer.Option(exists=True, help="A .npy of other embeddings, the last 256 of which are asked for too."),
    ] = None,
    systems: Annotated[
        str, typer.Option(help=f"Which the part approximate compares: some of {', '.join(SYSTEMS)}.")
    ] = ",".join(SYSTEMS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what an earlier run left in --out of the part approximate.")
    ] = False,
    seed: SeedOption = SEED,
    out: OutOption = Path(".bench"),
) -> None:
    """Measure search without the service: exact beside FAISS, structures beside hnswlib and usearch, filters, restart.

    Each row is printed and written as soon as it is known. The peers are measured where they are installed.
    """
    chosen = _some_of("--parts", parts, PARTS)
    paths = run_search(
        out,
        rows,
        exact_rows=exact_rows,
        parts=chosen,
        threads=len(os.sched_getaffinity(0)),
        seed=seed,
        vectors=vectors,
        strange=strange or (),
        systems=_some_of("--systems", systems, SYSTEMS),
        resume=resume,
    )
    messages().print(f"Written to {' and '.join(map(str, paths))}.")


@cli.command()
def backbones(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            exists=True,
            file_okay=False,
            help="Folders as for `bench accuracy`, of one folder for each class, or with masks beside the images.",
        ),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(help="embedded, stand-in, torchvision or file:PATH; repeat it [default: the service's]."),
    ] = None,
    backbone: BackboneOption = None,
    image_size: Annotated[
        list[int] | None, typer.Option(help="Side of the networks' input; repeat it [default: the weights' own].")
    ] = None,
    pooling: Annotated[
        list[str] | None,
        typer.Option(help="mean or sqrt_mean: how maps become vectors; repeat it [default: the service's]."),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A TFLite or OpenVINO classifier to compare with."),
    ] = None,
    teacher_size: Annotated[list[int] | None, typer.Option(help="Side of its input; repeat it [default: 224].")] = None,
    bank: Annotated[int | None, typer.Option(min=2, help="Normal images of each class [default: all].")] = None,
    limit: LimitOption = None,
    episodes: Annotated[int, typer.Option(min=1, help="Few-shot episodes.")] = BackbonesPlan().episodes,
    name: Annotated[str, typer.Option(help="Name of the report.")] = "backbones",
    seed: SeedOption = SEED,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare networks on the same images: strange images and sets, classes from one and five, retrieval.

    Writes backbones.json and backbones.md. Vectors are kept under the output folder by sha256 and fingerprint.
    """
    plan = BackbonesPlan(bank=bank, limit=limit, episodes=episodes, seed=seed)
    settings = folder_settings(data)
    cache, threads = out / "vectors", len(os.sched_getaffinity(0))
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        networks: list[Vectors] = [
            ServedVectors(embedders, _specification(settings, one, backbone, side, way), cache)
            for one in weights or (None,)
            for side in image_size or (None,)
            for way in pooling or (None,)
        ]
        if teacher is not None:
            networks += [TeacherVectors(teacher, side, cache, threads) for side in teacher_size or [224]]
        bar = progress.add_task("Starting", total=len(networks) * _files(folders, limit))
        found = measure_backbones(
            folders,
            networks,
            plan,
            advance=partial(progress.advance, bar),
            say=partial(_describe, progress, bar),
        )
    _write(found, out, name, backbones_text(found), as_json)


@cli.command()
def precisions(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", exists=True, file_okay=False, help="Folders as for `bench backbones`."),
    ],
    precision: Annotated[
        list[str] | None, typer.Option(help="Beside exact; repeat it [default: auto, bf16, int8].")
    ] = None,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    limit: LimitOption = None,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what a precision of the network does to nearest neighbours and to ROC-AUC, against exact float32.

    Writes precisions.json and precisions.md.
    """
    plan = PrecisionsPlan(precisions=tuple(precision or PrecisionsPlan().precisions), limit=limit)
    settings = folder_settings(data).model_copy(update={"deadline_s": DEADLINE_S})
    specification = _specification(settings, weights, backbone, image_size)
    with _sentences(), images_progress() as progress:
        bar = progress.add_task("Starting", total=(1 + len(plan.precisions)) * _files(folders, limit))
        found = measure_precisions(
            folders,
            settings,
            settings.threads or len(os.sched_getaffinity(0)),
            specification,
            plan,
            out / "vectors",
            advance=partial(progress.advance, bar),
            say=partial(_describe, progress, bar),
        )
    _write(found, out, "precisions", precisions_text(found), as_json)


def _files(folders: Sequence[Path], limit: int | None) -> int:
    return sum(len(read_folder(folder, limit).files()) for folder in folders)


@cli.command()
def crops(
    folder: FolderArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.npy", help="Where they are written.")],
    rows: Annotated[int, typer.Option(min=1, help="Vectors to store; 256 more are queries.")] = 100_000,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    seed: SeedOption = SEED,
    data: DataOption = None,
) -> None:
    """Write embeddings of random crops of DIR's images, which `oddity bench search --vectors` takes."""
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    files = image_files(folder)
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        bar = progress.add_task("Embedding crops", total=rows)
        write_crops(files, rows, embedders, specification, file, seed=seed, advance=partial(progress.advance, bar))
    messages().print(f"Written to {file}.")


def _some_of(option: str, given: str, known: Sequence[str]) -> list[str]:
    chosen = [one.strip() for one in given.split(",")]
    if unknown := sorted(set(chosen) - set(known)):
        raise CommandFailed(f"`{option}` must be some of {', '.join(known)}; got {', '.join(unknown)}.")
    return chosen


@cli.command()
def scale(
    rows: Annotated[int, typer.Option(min=100, help="Images of the collection.")] = ScalePlan().rows,
    queries: Annotated[int, typer.Option(min=1, help="Searches of each kind.")] = ScalePlan().queries,
    parts: Annotated[str, typer.Option(help=f"Some of {', '.join(SCALE_PARTS)}, separated by commas.")] = ",".join(
        SCALE_PARTS
    ),
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Measure a large collection: snapshot, building its structure, starting with it, searching, memory, deleting.

    Of the parts, `record` is a start without the index file, and `file` one with it, and searches.
    """
    plan = ScalePlan(rows=rows, queries=queries, parts=tuple(_some_of("--parts", parts, SCALE_PARTS)))
    with _sentences(), images_progress() as progress:
        bar = progress.add_task("Starting", total=None)
        found = measure_scale(plan, partial(_describe, progress, bar))
    _write(found, out, f"scale_{rows}", scale_text(found), as_json)


@cli.command()
def filters(
    rows: Annotated[int, typer.Option(min=1000, help="Images of the table.")] = FILTER_ROWS,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Measure filters on metadata: the first use of a key, a filter at several selectivities, memory an image."""
    with images_progress() as progress:
        bar = progress.add_task("Starting", total=None)
        found = measure_filters(rows, partial(_describe, progress, bar))
    _write(found, out, f"filters_{rows}", filters_text(found), as_json)


@cli.command("methods")
def methods(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders, each as for `bench accuracy`.")],
    method: Annotated[list[str] | None, typer.Option(help="A method to measure; repeat it [default: all].")] = None,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    limit: LimitOption = None,
    together: Annotated[int, typer.Option(min=1, help="Classes that are normal together.")] = 1,
    normal: Annotated[list[str] | None, typer.Option(help="A normal class of one single case; repeat it.")] = None,
    cases_max: Annotated[int | None, typer.Option(min=1, help="Cases of each folder [default: all].")] = None,
    shots: Annotated[int, typer.Option(min=0, help="Labelled images of each strange kind that methods are told.")] = 0,
    unlabelled: Annotated[int, typer.Option(min=0, help="Unsorted images that methods are told, at most.")] = 0,
    answers: Annotated[
        list[int] | None, typer.Option(min=1, help="Simulated answers about pairs; repeat it for several numbers.")
    ] = None,
    mistakes: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of answers that are given by chance.")
    ] = Supervision().mistakes,
    seed: SeedOption = SEED,
    quick: Annotated[bool, typer.Option("--quick", help="Quick parameters: tries the harness out, no more.")] = False,
    cards: Annotated[bool, typer.Option("--cards", help="Write the figures into the methods' cards too.")] = False,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit and score every method on the same splits and vectors, beside plain nearest neighbours.

    Labels, unsorted images and answers are drawn from images that are not tested: of train, and where that holds good
    images alone from half of each kind of defect. Then logistic regression on the same labels stands beside too.

    Writes methods.json and methods.md; with --cards also each method's measured.json, from which its page is made.
    """
    if quick and cards:
        raise CommandFailed("Figures of quick parameters are no figures of a method; leave out --quick or --cards.", 2)
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    with _sentences():
        supervision = Supervision(shots, unlabelled, tuple(sorted(answers or ())), mistakes)
    plan = MethodsPlan(
        methods=tuple(method or ()),
        limit=limit,
        normal=tuple(normal or ()),
        together=together,
        cases_max=cases_max,
        seed=seed,
        quick=quick,
        supervision=supervision,
    )
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        bar = progress.add_task("Embedding", total=None)
        found = measure_methods(
            folders,
            embedders,
            specification,
            plan,
            out / "vectors",
            advance=partial(progress.advance, bar),
            say=partial(_describe, progress, bar),
        )
    _write(found, out, "methods", methods_text(found), as_json)
    if cards:
        for path in write_cards(found, setting_sentence(found, setting())):
            messages().print(f"Written to {path}.", highlight=False, soft_wrap=True)


@cli.command()
def speed(
    backbone: Annotated[list[str] | None, typer.Option(help="torchvision ResNet; repeat it.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="small, medium or large JPEGs; repeat it.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="decoder, network, baseline, service, stages or bars; repeat it.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="exact, float32, bf16 or int8, of the network alone; repeat it.")
    ] = None,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="Keep-alive clients; repeat it.")] = None,
    batch: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Images of a request, measured besides requests of one; 1: not measured."),
    ] = SpeedPlan().batch,
    images: Annotated[int, typer.Option(min=1, help="Different images of each size.")] = SpeedPlan().images,
    bank: Annotated[int, typer.Option(min=3, help="Images of the collection.")] = SpeedPlan().bank,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each measurement.")] = SpeedPlan().seconds,
    turns: Annotated[int, typer.Option(min=1, help="Turns of what the bars compare.")] = SpeedPlan().turns,
    image_size: SizeOption = None,
    weights: Annotated[
        str | None, typer.Option(help="embedded, stand-in or file:PATH [default: embedded where there are any].")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Thread budget [default: all cores].")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the service.")] = SpeedPlan().processes,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Measure scoring and adding beside decoder and network alone, and torchvision one image at a time, in one run.

    Starts servers of its own on folders of their own. Images are generated; nothing is fetched.
    """
    usual = SpeedPlan()
    with _sentences(), images_progress() as progress:
        plan = SpeedPlan(
            backbones=tuple(backbone or usual.backbones),
            sizes=tuple(size or usual.sizes),
            parts=tuple(part or usual.parts),
            precisions=tuple(precision or usual.precisions),
            clients=tuple(clients or usual.clients),
            batch=batch,
            images=images,
            bank=bank,
            seconds=seconds,
            turns=turns,
            image_size=image_size,
            weights=weights,
            threads=threads,
            processes=processes,
        )
        bar = progress.add_task("Starting", total=None)
        found = measure_speed(plan, say=partial(_describe, progress, bar))
    _write(found, out, "speed", speed_text(found), as_json)


@cli.command()
def decoding(
    size: Annotated[list[str] | None, typer.Option(help="small, medium or large JPEGs; repeat it.")] = None,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="Keep-alive clients; repeat it.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Measurements of each way.")] = DecodingPlan().turns,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each measurement.")] = DecodingPlan().seconds,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the network's input.")] = DecodingPlan().image_size,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Measure what it costs to decode in processes instead of in threads, on two servers loaded in turn."""
    usual = DecodingPlan()
    with _sentences(), images_progress() as progress:
        plan = DecodingPlan(
            sizes=tuple(size or usual.sizes),
            clients=tuple(clients or usual.clients),
            turns=turns,
            seconds=seconds,
            image_size=image_size,
        )
        bar = progress.add_task("Starting", total=None)
        found = measure_decoding(plan, say=partial(_describe, progress, bar))
    _write(found, out, "decoding", decoding_text(found), as_json)


@cli.command()
def checkouts(
    other: Annotated[Path, typer.Argument(help="Folder with another checkout, such as a git worktree.")],
    size: Annotated[str, typer.Option(help="small, medium or large JPEGs.")] = "medium",
    clients: Annotated[list[int] | None, typer.Option(min=1, help="Keep-alive clients; repeat it.")] = None,
    servers: Annotated[int, typer.Option(min=1, help="Servers of each.")] = 4,
    turns: Annotated[int, typer.Option(min=1, help="Measurements of each server.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each measurement.")] = 2.0,
    bank: Annotated[int, typer.Option(min=1, help="Images in the bank.")] = 200,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Measure what a change does to scoring and adding: servers of this checkout and another one, loaded in turn."""
    with _sentences(), images_progress() as progress:
        plan = CheckoutsPlan(other, size, tuple(clients or (1, 8, 32)), servers, turns, seconds, bank)
        bar = progress.add_task("Starting", total=None)
        found = measure_checkouts(plan, say=partial(_describe, progress, bar))
    _write(found, out, "checkouts", checkouts_text(found), as_json)


@cli.command()
def hostile(
    times: Annotated[int, typer.Option(min=1, help="How often each kind is sent.")] = HostilePlan().times,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once.")] = HostilePlan().clients,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Send a server of its own every kind of hostile input: outcomes, memory, and what a stranger learns.

    Exit code 1 when it answers with a server error other than 503, or serves no more.
    """
    with _sentences(), images_progress() as progress:
        bar = progress.add_task("Starting a server", total=None)
        plan = HostilePlan(times=times, clients=clients)
        found = measure_hostile(plan, say=partial(_describe, progress, bar))
    _write(found, out, "hostile", hostile_text(found), as_json)
    if not found["is_within_bars"]:
        raise CommandFailed("Hostile input met a server error; the report says which.")


@cli.command()
def overload(
    seconds: Annotated[float, typer.Option(min=1, help="Length of the overload.")] = OverloadPlan().seconds,
    out: OutOption = Path(".bench"),
    as_json: JsonOption = False,
) -> None:
    """Send a server of its own ten times the load it has places for, and check what it does with the rest.

    Exit code 1 when a bar is missed.
    """
    with _sentences(), images_progress() as progress:
        bar = progress.add_task("Starting a server", total=None)
        found = measure_overload(OverloadPlan(seconds=seconds), say=partial(_describe, progress, bar))
    _write(found, out, "overload", overload_text(found), as_json)
    if not found["is_within_bars"]:
        raise CommandFailed("A bar was missed under overload; the report says which.")


@cli.command("heat-maps")
def heat_maps(
    folder: FolderArgument,
    method: Annotated[list[str] | None, typer.Option(help="A method to measure; repeat it [default: all].")] = None,
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Splits, and seeds of the fits.")] = HeatMapsPlan().seeds,
    share: Annotated[float, typer.Option(min=0.1, max=0.9, help="Flawless images that go to the bank.")] = 0.7,
    side: Annotated[int, typer.Option(min=16, help="Pixels a side on which maps meet masks.")] = HeatMapsPlan().side,
    quick: Annotated[bool, typer.Option("--quick", help="Quick parameters: tries the harness out, no more.")] = False,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure heat maps on DIR with masks: image and pixel ROC-AUC, overlap with each defect, beside plain dn2.

    DIR holds good/, bad/ and x_mask.png beside each bad image; or is laid out as MVTec AD or as KolektorSDD. Writes
    heat_maps-DIR.json and .md, and a picture for each method.
    """
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    plan = HeatMapsPlan(methods=tuple(method or ()), seeds=seeds, share=share, side=side, quick=quick)
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        bar = progress.add_task(f"Embedding {folder.name}", total=None)
        found = measure_heat_maps(
            folder,
            embedders,
            specification,
            plan,
            out / "vectors",
            out,
            advance=partial(progress.advance, bar),
            say=partial(_describe, progress, bar),
        )
    _write(found, out, f"heat_maps-{folder.name}", heat_maps_text(found), as_json)


@cli.command()
def images(folder: FolderToWrite) -> None:
    """Write images that need no outside data to DIR/digits (ten classes) and DIR/textures (defects, with masks)."""
    for made in (write_digits(folder / "digits"), write_textures(folder / "textures", SEED)):
        messages().print(f"Written to {made}.", highlight=False, soft_wrap=True)


@cli.command("all")
def run_all(
    weights: WeightsOption = None,
    backbone: BackboneOption = None,
    image_size: SizeOption = None,
    out: OutOption = Path(".bench"),
    data: DataOption = None,
) -> None:
    """Measure on images that need no outside data: scikit-learn's digits, and drawn textures with planted defects."""
    settings = folder_settings(data)
    specification = _specification(settings, weights, backbone, image_size)
    digits = write_digits(out / "images" / "digits")
    textures = write_textures(out / "images" / "textures", SEED)
    for folder in (digits, textures):
        _run_accuracy(folder, settings, specification, AccuracyPlan(seed=SEED), out, False)
    _run_reference(digits, settings, specification, None, DIGITS_LIMIT, False, out, None, None, False)


def _describe(progress: Progress, bar: TaskID, text: str) -> None:
    progress.update(bar, description=text)


def _run_accuracy(
    folder: Path, settings: Settings, specification: EmbeddingSpec, plan: AccuracyPlan, out: Path, as_json: bool
) -> None:
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        bar = progress.add_task(f"Embedding {folder.name}", total=len(read_layout(folder, plan.limit).files()))
        found = measure_accuracy(
            folder,
            embedders,
            specification,
            plan,
            out / "vectors",
            advance=lambda count: progress.advance(bar, count),
            say=lambda text: progress.update(bar, description=f"Measuring {text}"),
        )
    _write(found, out, f"accuracy-{folder.name}", accuracy_text(found), as_json)


def _run_reference(
    folder: Path,
    settings: Settings,
    specification: EmbeddingSpec,
    normal: str | None,
    limit: int | None,
    is_stored: bool,
    out: Path,
    server: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    with _sentences(), _opened(settings) as embedders, images_progress() as progress:
        layout = read_layout(folder, limit)
        case = cases(layout, normal=(normal,) if normal else ())[0]
        files = files_needed(layout, case)
        bar = progress.add_task(f"Embedding {folder.name}", total=len(files))
        pool, embedder = embed_files(
            files, embedders, specification, out / "vectors", lambda count: progress.advance(bar, count)
        )
        tests = sum(map(len, layout.test.values()))
        bank = sum(len(layout.train[kind]) for kind in case.normal)
        bar = progress.add_task("Through HTTP", total=bank + tests * (len(KS) * len(METRICS) + is_stored))
        asked = {"weights": specification.weights, "backbone": specification.backbone}
        asked_all = {**asked, "image_size": specification.image_size}
        # A service of its own unless one is named: nothing of the user's is touched.
        own = nullcontext(None) if server or data else TemporaryDirectory()
        with own as place, open_client(server, data or (Path(place) if place else None)) as client:
            compared = compare(
                client,
                layout,
                case,
                pool,
                asked_all,
                embedder.identity.fingerprint,
                lambda count: progress.advance(bar, count),
                is_stored=is_stored,
            )
    found = {
        "benchmark": "reference",
        "weights": embedder.identity.weights.partition(":")[0],
        "embedding": {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]},
        "data": layout.name,
        "case": case.name,
        "comparisons": compared,
    }
    _write(found, out, f"reference-{folder.name}", reference_text(found), as_json)
    if not all(one["is_within_bar"] for one in compared):
        raise CommandFailed("The served ROC-AUC differs from the reference by 0.0005 or more.")


def _write(found: dict[str, Any], out: Path, name: str, body: list[str], as_json: bool) -> None:
    as_file, as_text = write_report(found, out, name, body)
    if as_json:
        print_json(found)
    else:
        results().print(Markdown(as_text.read_text(encoding="utf-8")))
    messages().print(f"Written to {as_file} and {as_text}.", highlight=False, soft_wrap=True)


@contextmanager
def _opened(settings: Settings) -> Iterator[Embedders]:
    # A measurement may take as long as it takes, also on a busy machine: nobody waits for it as for a request.
    patient = settings.model_copy(update={"deadline_s": DEADLINE_S})
    embedders = Embedders(patient, settings.threads or len(os.sched_getaffinity(0)))
    try:
        yield embedders
    finally:
        embedders.close()


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (BenchmarkRefused, ModelsError) as error:
        raise CommandFailed(str(error)) from error


def _specification(
    settings: Settings,
    weights: str | None,
    backbone: str | None,
    image_size: int | None,
    pooling: str | None = None,
) -> EmbeddingSpec:
    with _sentences(), _opened(settings) as embedders:
        source = weights or embedders.default_weights
        if source.startswith("file:"):  # named as seen from here, not from the data folder
            source = f"file:{Path(source.removeprefix('file:')).resolve()}"
        return EmbeddingSpec(
            backbone=backbone or embedders.default_backbone,
            weights=source,
            image_size=image_size or embedders.default_image_size,
            pooling=cast("FeaturePooling", pooling or embedders.default_pooling),  # which is checked
        )
