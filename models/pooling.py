"""Sets judged by the scores of their images: one number for a set, and calibration on sets.

A set is strange when its pooled score is large among the pooled scores of normal sets of the same size. Those are
drawn from the images that were held out of a fit, each in one set at most, so that they are independent: n images
calibrate n / size sets.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class ScorePooling(StrEnum):
    """How the scores of a set become one."""

    MEAN = "mean"
    MAX = "max"


def pooled(scores: NDArray[np.float32], pooling: ScorePooling) -> NDArray[np.float32]:
    """One score for each set.

    Shapes: (sets, size) -> (sets,). Order: the same bits whatever the order of a set.
    """
    ordered = np.sort(scores.astype(np.float64), axis=1)
    found = ordered[:, -1] if pooling is ScorePooling.MAX else ordered.mean(axis=1)
    return np.asarray(found, np.float32)


def calibration_of_sets(
    scores: NDArray[np.float32], size: int, pooling: ScorePooling, *, seed: int
) -> NDArray[np.float32]:
    """Pooled scores of disjoint sets of held-out images, drawn once for a seed.

    Shapes: (n,) -> (n // size,).
    """
    count = scores.size // size
    drawn = np.random.default_rng(seed).permutation(scores.size)[: count * size]
    return pooled(scores[drawn].reshape(count, size), pooling)


def shares(scores: NDArray[np.float32], calibration: NDArray[np.float32], pooling: ScorePooling) -> NDArray[np.float32]:
    """What each image of a set contributed to its score; the sum is 1.

    `mean`: its excess over the median of normal images, as a part of all excesses; alike where there is none. `max`:
    the largest brought it all, the first of equals.

    Shapes: (size,), (n,) -> (size,).
    """
    if pooling is ScorePooling.MAX:
        found = np.zeros(scores.size, np.float32)
        found[scores.argmax()] = 1.0
        return found
    usual = float(np.median(calibration)) if calibration.size else float(scores.min())
    excess = np.maximum(scores.astype(np.float64) - usual, 0.0)
    if not excess.any():
        excess = np.ones(scores.size)
    return np.asarray(excess / excess.sum(), np.float32)
