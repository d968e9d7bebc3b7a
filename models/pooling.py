"""Sets judged by the scores of their images: one number for a set, and calibration on sets.

A set is strange when its pooled score is large among the pooled scores of normal sets of the same size. Those are
drawn from normal images that saw neither themselves nor each other, held out of a fit or left out of the bank, each in
one set at most, so that they are independent: n images calibrate n / size sets.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class ScorePooling(StrEnum):
    """How the scores of a set become one."""

    MEAN = "mean"
    """Whether the set is strange as a whole."""
    MAX = "max"
    """Whether any of its images is."""
    EXCESS = "excess"
    """Between the two: the root mean square of what each image has beyond a usual one. A few strange images stand out
    among many, and so do many that are a little strange."""


def usual_score(calibration: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """What a normal image scores: the median of those that calibrate, and without any the lowest of the set itself."""
    return float(np.median(calibration)) if calibration.size else float(scores.min())


def pooled(scores: NDArray[np.float32], pooling: ScorePooling, usual: float) -> NDArray[np.float32]:
    """One score for each set; larger = stranger, and of `excess` 0 where no image is beyond the usual score.

    Shapes: (sets, size) -> (sets,). Units: the scorer's. Order: the same bits whatever the order of a set.
    """
    ordered = np.sort(scores.astype(np.float64), axis=1)
    if pooling is ScorePooling.MAX:
        found = ordered[:, -1]
    elif pooling is ScorePooling.MEAN:
        found = ordered.mean(axis=1)
    else:
        found = np.sqrt((_excess(ordered, usual) ** 2).mean(axis=1))
    return np.asarray(found, np.float32)


def disjoint_sets(count: int, size: int, *, seed: int) -> NDArray[np.intp]:
    """Places of `count` images, each in one set at most, drawn once for a seed.

    Shapes: -> (count // size, size).
    """
    sets = count // size
    return np.random.default_rng(seed).permutation(count)[: sets * size].reshape(sets, size)


def calibration_of_sets(
    scores: NDArray[np.float32], size: int, pooling: ScorePooling, *, seed: int
) -> NDArray[np.float32]:
    """Pooled scores of disjoint sets of images that were held out of a fit.

    Shapes: (n,) -> (n // size,).
    """
    if scores.size < size:
        return np.zeros(0, np.float32)
    return pooled(scores[disjoint_sets(scores.size, size, seed=seed)], pooling, usual_score(scores, scores))


def shares(scores: NDArray[np.float32], pooling: ScorePooling, usual: float) -> NDArray[np.float32]:
    """What each image of a set contributed to its score; the sum is 1.

    `mean`: its excess over the usual score, as a part of all excesses; `excess`: the same of their squares; alike where
    there is none. `max`: the largest brought it all, the first of equals.

    Shapes: (size,) -> (size,).
    """
    if pooling is ScorePooling.MAX:
        found = np.zeros(scores.size, np.float32)
        found[scores.argmax()] = 1.0
        return found
    parts = _excess(scores.astype(np.float64), usual)
    if pooling is ScorePooling.EXCESS:
        parts = parts**2
    if not parts.any():
        parts = np.ones(scores.size)
    return np.asarray(parts / parts.sum(), np.float32)


def _excess(scores: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.maximum(scores - usual, 0.0)
    return found
