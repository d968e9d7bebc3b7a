"""Figures that say what vectors are worth: strangers told from one class, and classes learnt from few images.

The vectors are any rows; `embedded_folder` makes them with the embedder that serves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from models.backbones.embedder import Embedder
from models.backbones.engine import BATCH_MAX
from models.errors import ImageTooLarge, ImageUnreadable, ParameterInvalid
from models.images import ImageLimits
from models.pretraining.data import SUFFIXES


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVectors:
    """Vectors of a folder of classes."""

    vectors: NDArray[np.float32]  # (N, D)
    labels: NDArray[np.int64]  # (N,), places in `classes`
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FewShotAccuracy:
    """Share of queries named rightly over all episodes."""

    mean: float  # 0 to 1
    half_width: float  # of the 95 % interval of the mean over episodes
    episodes: int


def embedded_folder(
    embedder: Embedder,
    folder: Path,
    *,
    limits: ImageLimits,
    per_class: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelledVectors:
    """Vectors of the images below each class folder, the first `per_class` of each by path.

    Images that do not decode are left out.

    Shapes: n images -> (n, width).
    """
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    listed = [
        (label, path)
        for label, name in enumerate(classes)
        for path in sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)[:per_class]
    ]
    parts: list[NDArray[np.float32]] = [np.empty((0, embedder.width), dtype=np.float32)]
    labels: list[int] = []
    for start in range(0, len(listed), BATCH_MAX):
        prepared = []
        for label, path in listed[start : start + BATCH_MAX]:
            try:
                prepared.append(embedder.prepare(path.read_bytes(), limits))
            except (ImageUnreadable, ImageTooLarge):
                continue
            labels.append(label)
        parts.append(embedder.embed(prepared))
        if progress is not None:
            progress(min(start + BATCH_MAX, len(listed)), len(listed))
    return LabelledVectors(np.concatenate(parts), np.array(labels, dtype=np.int64), classes)


def neighbour_distances(queries: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Mean cosine distance from each query to its k nearest rows of the bank.

    Shapes: queries (Q, D), bank (N, D) -> (Q,).
    Units:  0 (same direction) to 2; larger is stranger.
    Memory: 1024 x N float32 at a time.

    Raises:
        ParameterInvalid: k is not from 1 to N.
    """
    if not 1 <= k <= len(bank):
        raise ParameterInvalid(f"`k` of the neighbours must be from 1 to the bank's {len(bank)}; got {k}.")
    rows = _unit(bank)
    means = np.empty(len(queries), dtype=np.float32)
    for start in range(0, len(queries), 1024):
        distances = 1 - _unit(queries[start : start + 1024]) @ rows.T
        nearest = np.partition(distances, k - 1, axis=1)[:, :k]
        means[start : start + 1024] = nearest.mean(axis=1)
    return means


def one_vs_rest_auc(bank: LabelledVectors, queries: LabelledVectors, *, k: int = 2) -> dict[str, float]:
    """Area under the ROC curve for each class: its bank is normal, every other class is strange.

    Units: 0 to 1; 0.5 is chance. The published figure is the mean over the classes.

    Raises:
        ParameterInvalid: the two hold other classes, or a class is without images.
    """
    if bank.classes != queries.classes:
        raise ParameterInvalid("`queries` must hold the classes of the bank, by the same names.")
    areas = {}
    for label, name in enumerate(bank.classes):
        strange = queries.labels != label
        normal = bank.vectors[bank.labels == label]
        if len(normal) == 0 or strange.all() or not strange.any():
            raise ParameterInvalid(f"`classes` must each have images in the bank and among the queries; got {name}.")
        areas[name] = float(roc_auc_score(strange, neighbour_distances(queries.vectors, normal, k)))
    return areas


def few_shot_accuracy(
    images: LabelledVectors,
    *,
    seed: int,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    c: float = 1.0,
) -> FewShotAccuracy:
    """Accuracy of a logistic regression learnt from `shots` images of each of `ways` classes.

    Classes and images are drawn anew for each episode; vectors are brought to length 1. `c` weighs the examples' loss
    against the squared weights, as scikit-learn's `C`.

    Raises:
        ParameterInvalid: fewer classes than `ways`, or a class with fewer than `shots + queries` images.
    """
    members = [np.flatnonzero(images.labels == label) for label in range(len(images.classes))]
    if len(members) < ways or min(len(rows) for rows in members) < shots + queries or ways < 2:
        raise ParameterInvalid(
            f"`images` of a few-shot test must hold {max(ways, 2)} classes of {shots + queries} images; got "
            f"{len(members)} classes, the smallest of {min(map(len, members), default=0)}."
        )
    unit = _unit(images.vectors)
    random = np.random.default_rng(seed)
    accuracies = np.empty(episodes)
    told = np.repeat(np.arange(ways), shots)
    asked = np.repeat(np.arange(ways), queries)
    for episode in range(episodes):
        drawn = [
            random.choice(members[label], shots + queries, replace=False)
            for label in random.choice(len(members), ways, replace=False)
        ]
        learnt = LogisticRegression(
            C=c, max_iter=1000
        ).fit(  # type: ignore[no-untyped-call]
            unit[np.concatenate([rows[:shots] for rows in drawn])], told
        )
        answers = learnt.predict(unit[np.concatenate([rows[shots:] for rows in drawn])])
        accuracies[episode] = (answers == asked).mean()
    spread = accuracies.std(ddof=1) if episodes > 1 else 0.0
    return FewShotAccuracy(float(accuracies.mean()), float(1.96 * spread / np.sqrt(episodes)), episodes)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
