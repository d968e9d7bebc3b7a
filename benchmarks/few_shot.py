"""`oddity bench few-shot`: N-way K-shot episodes, images of no class, and how long a fit takes.

An episode draws some classes, some images of each to learn from (shots) and some to ask about (queries); and, where the
folder has classes left, as many queries of classes that were not learnt. Learning, probabilities, p-values and verdicts
are those that the service answers with. Two episodes share classes and images, so the interval is that of the mean over
episodes of this folder: it says nothing about other classes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.cli.sending import image_files
from app.embedders import Embedders
from benchmarks.embedding import Advance, embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.metrics import expected_calibration_error, roc_auc
from benchmarks.report import percent, table
from models.backbones.embedder import EmbeddingSpec
from models.judging import anomalous, make_calibration
from models.methods.few_shot_lr import FewShotLRParams, FittedClasses, LiveFewShotLR

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FewShotPlan:
    """What is measured."""

    ways: int = 5
    shots: tuple[int, ...] = (1, 5)
    queries: int = 15
    """Of each class, learnt or not."""
    episodes: int = 600
    rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    limit: int | None = None
    """Files of each class; None: all."""
    seed: int = 0
    c: tuple[float, ...] = (FewShotLRParams().c,)
    """Of `few_shot_lr`; each is measured on the same episodes."""
    many_classes: int = 500
    many_shots: int = 10
    """The case whose fit is timed, on drawn vectors."""


def measure_few_shot(
    folder: Path,
    embedders: Embedders,
    spec: EmbeddingSpec,
    plan: FewShotPlan,
    cache: Path,
    *,
    advance: Advance | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Every figure of the plan on a folder with one folder of images for each class.

    Raises:
        BenchmarkRefused: the folder does not allow the plan.
    """
    files = class_files(folder, plan.limit)
    pool, embedder = embed_files([one for kind in files.values() for one in kind], embedders, spec, cache, advance)
    rows = {name: pool.rows(kind) for name, kind in files.items()}
    measured = []
    for shots, c in product(plan.shots, plan.c):
        say(f"{plan.ways}-way {shots}-shot, c {c:g}")
        measured.append(measure_episodes(pool.vectors, rows, shots, plan, c))
    say(f"{plan.many_classes} classes")
    return {
        "benchmark": "few_shot",
        "weights": embedder.identity.weights.partition(":")[0],
        "embedding": {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]},
        "data": {"folder": folder.name, "classes": {name: int(one.size) for name, one in rows.items()}},
        "plan": asdict(plan),
        "episodes": measured,
        "time": measure_time(plan.many_classes, plan.many_shots, embedder.width, plan.seed),
    }


def class_files(folder: Path, limit: int | None = None) -> dict[str, list[Path]]:
    """Image files by class: the folders of `folder/test` where there is one, else those of `folder` itself.

    Raises:
        BenchmarkRefused: there are not two classes.
    """
    place = folder / "test" if (folder / "test").is_dir() else folder
    kinds = {one.name: image_files(one)[:limit] for one in sorted(place.iterdir()) if one.is_dir()}
    kinds = {name: found for name, found in kinds.items() if found}
    if len(kinds) < 2:
        raise BenchmarkRefused(f"{place} must hold a folder of images for each of two classes; got {len(kinds)}.")
    return kinds


def measure_episodes(
    vectors: Vectors,
    rows: Mapping[str, NDArray[np.int64]],
    shots: int,
    plan: FewShotPlan,
    c: float = FewShotLRParams().c,
) -> dict[str, Any]:
    """Figures of one number of shots over the plan's episodes, `few_shot_lr` with this `c`.

    Raises:
        BenchmarkRefused: there are too few classes with enough images.
    """
    names = sorted(name for name, one in rows.items() if one.size >= shots + plan.queries)
    if len(names) < plan.ways:
        raise BenchmarkRefused(
            f"{plan.ways}-way {shots}-shot needs {plan.ways} classes of at least {shots + plan.queries} distinct "
            f"images; got {len(names)}."
        )
    random = np.random.default_rng([plan.seed, shots])
    right: list[float] = []
    found_apart: list[float] = []
    claimed: list[NDArray[np.float64]] = []
    was_right: list[NDArray[np.bool_]] = []
    verdicts: dict[float, list[tuple[float, float, float]]] = {rate: [] for rate in plan.rates}
    for _ in range(plan.episodes):
        order = random.permutation(len(names))
        learnt = [names[place] for place in order[: plan.ways]]
        others = [names[place] for place in order[plan.ways : 2 * plan.ways]]
        drawn = {name: random.permutation(rows[name])[: shots + plan.queries] for name in (*learnt, *others)}
        fitted = _fitted(vectors, {name: drawn[name][:shots] for name in learnt}, c)
        asked = np.concatenate([drawn[name][shots:] for name in learnt])
        truth = np.repeat([fitted.labels.index(name) for name in learnt], plan.queries)
        known = fitted.classify(vectors[asked], nearest=0)
        is_right = known.probabilities.argmax(axis=1) == truth
        right.append(float(is_right.mean()))
        claimed.append(known.probabilities.max(axis=1))
        was_right.append(is_right)
        if not others:
            continue
        strange = fitted.classify(vectors[np.concatenate([drawn[name][shots:] for name in others])], nearest=0)
        scores = np.concatenate([known.score, strange.score])
        found_apart.append(roc_auc(scores, np.arange(scores.size) >= known.score.size))
        for rate in plan.rates:
            border = make_calibration(fitted.calibration_scores, rate)
            alarms = [anomalous(one, border) for one in (known.score, strange.score)]
            if alarms[0] is not None and alarms[1] is not None:
                verdicts[rate].append((border.false_alarm_rate, float(alarms[0].mean()), float(alarms[1].mean())))
    return {
        "ways": plan.ways,
        "shots": shots,
        "c": c,
        "accuracy": _mean(right),
        "calibration_error": expected_calibration_error(np.concatenate(claimed), np.concatenate(was_right)),
        "unknown_roc_auc": _mean(found_apart),
        "rates": [
            {
                "requested": rate,
                "promised": float(np.mean([one[0] for one in many])) if many else None,
                "known_called_unknown": _mean([one[1] for one in many]),
                "strangers_found": _mean([one[2] for one in many]),
            }
            for rate, many in verdicts.items()
        ],
    }


def measure_time(n_classes: int, shots: int, width: int, seed: int) -> dict[str, Any]:
    """Seconds of a fit to drawn vectors (any fit: it begins anew at every change), and of an answer.

    The vectors are non-negative around a centre for each class, like pooled features; median of three fits and of 100
    answers, one image each.
    """
    random = np.random.default_rng(seed)
    centres = np.abs(random.normal(size=(n_classes, width)))
    classes = np.repeat(np.arange(n_classes), shots)
    vectors = np.abs(centres[classes] + random.normal(0, 0.7, (classes.size, width))).astype(np.float32)
    of_class = {f"{number:06}": np.flatnonzero(classes == number) for number in range(n_classes)}
    fits, busy, answers = [], [], []
    for _ in range(3):
        begun, worked = time.perf_counter(), time.process_time()
        fitted = _fitted(vectors, of_class, FewShotLRParams().c)
        fits.append(time.perf_counter() - begun)
        busy.append(time.process_time() - worked)
    for place in random.integers(0, classes.size, 100):
        begun = time.perf_counter()
        fitted.classify(vectors[place : place + 1])
        answers.append(time.perf_counter() - begun)
    return {
        "classes": n_classes,
        "shots": shots,
        "width": width,
        "fit_s": float(np.median(fits)),
        "fit_processor_s": float(np.median(busy)),
        "answer_s": float(np.median(answers)),
    }


def few_shot_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    plan, timed = found["plan"], found["time"]
    lines = [
        f"Data: {found['data']['folder']}, {len(found['data']['classes'])} classes, "
        f"{sum(found['data']['classes'].values())} distinct images. {plan['episodes']} episodes, {plan['queries']} "
        f"queries a class, seed {plan['seed']}. Figures are percent with the half width of the 95 % interval of the "
        "mean over episodes.",
        "",
    ]
    head = ["episode", "accuracy", "calibration error", "ROC-AUC of unknown"]
    lines += table(
        head,
        [
            [
                _episode(one),
                _shown(one["accuracy"]),
                percent(one["calibration_error"]),
                _shown(one["unknown_roc_auc"]),
            ]
            for one in found["episodes"]
        ],
    )
    lines += ["Share called unknown: asked for, promised, of images of learnt classes, of strangers.", ""]
    lines += table(
        ["episode", "asked", "promised", "known", "strangers"],
        [
            [
                _episode(one),
                percent(rate["requested"]),
                percent(rate["promised"]) or "no verdict",
                _shown(rate["known_called_unknown"]),
                _shown(rate["strangers_found"]),
            ]
            for one in found["episodes"]
            for rate in one["rates"]
        ],
    )
    return [
        *lines,
        f"{timed['classes']} classes of {timed['shots']} drawn vectors of {timed['width']}: "
        f"fit {timed['fit_s']:.2f} s ({timed['fit_processor_s']:.2f} s of processor time), "
        f"answer {1000 * timed['answer_s']:.1f} ms.",
        "",
    ]


def _episode(measured: Mapping[str, Any]) -> str:
    return f"{measured['ways']}-way {measured['shots']}-shot, c {measured['c']:g}"


def _fitted(vectors: Vectors, of_class: Mapping[str, NDArray[np.int64]], c: float) -> FittedClasses:
    live = LiveFewShotLR(width=vectors.shape[1], params=FewShotLRParams(c=c))
    rows = np.concatenate(list(of_class.values()))
    labels = [name for name, one in of_class.items() for _ in range(one.size)]
    live.add(np.arange(rows.size), rows.astype(np.uint64), labels, vectors[rows])
    return live.fitted()


def _mean(values: Sequence[float]) -> dict[str, float] | None:
    """The mean with the half width of its 95 % interval."""
    if not values:
        return None
    spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    half = 1.96 * float(spread) / np.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half_width": float(half) if np.isfinite(half) else 0.0}


def _shown(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{100 * value['mean']:.2f} ± {100 * value['half_width']:.2f}"
