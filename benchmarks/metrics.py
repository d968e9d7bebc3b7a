"""How well scores tell strangers from normal images: pure functions of raw scores."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.errors import BenchmarkRefused


def roc_auc(scores: ArrayLike, is_stranger: ArrayLike) -> float:
    """Probability that a stranger scores above a normal image, a tie counting half.

    Shapes: scores (n,), is_stranger (n,) bool.
    Units:  [0, 1]; 0.5 is guessing.

    Raises:
        BenchmarkRefused: one of the two kinds is missing, or a score is not finite.

    >>> roc_auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    values, strange = _checked(scores, is_stranger)
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle_ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]  # from 1; tied scores share their mean rank
    n = int(strange.sum())
    above = middle_ranks[strange].sum() - n * (n + 1) / 2.0
    return float(above / (n * (values.size - n)))


def average_precision(scores: ArrayLike, is_stranger: ArrayLike) -> float:
    """Precision averaged over the steps of recall, borders at each distinct score from the highest down.

    Shapes: scores (n,), is_stranger (n,) bool.
    Units:  [0, 1]; the share of strangers is guessing.

    Raises:
        BenchmarkRefused: one of the two kinds is missing, or a score is not finite.
    """
    found, alarms = _steps(*_checked(scores, is_stranger))
    gained = np.diff(found, prepend=0) / found[-1]
    return float((gained * found / (found + alarms)).sum())


def false_positive_rate_at(scores: ArrayLike, is_stranger: ArrayLike, true_positive_rate: float = 0.95) -> float:
    """Smallest share of normal images above a border that still finds this share of the strangers.

    Shapes: scores (n,), is_stranger (n,) bool.
    Units:  [0, 1]; smaller is better.

    Raises:
        BenchmarkRefused: one of the two kinds is missing, or a score is not finite.
    """
    found, alarms = _steps(*_checked(scores, is_stranger))
    first = int(np.argmax(found >= true_positive_rate * found[-1] - 1e-9))
    return float(alarms[first] / alarms[-1])


def _steps(values: NDArray[np.float64], strange: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Strangers and normal images at or above each distinct score, the highest first."""
    order = np.argsort(-values, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)
    found = np.cumsum(strange[order])[last_of_tie]
    return found, last_of_tie + 1 - found


def _checked(scores: ArrayLike, is_stranger: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, strange = np.asarray(scores, np.float64), np.asarray(is_stranger, np.bool_)
    if values.ndim != 1 or values.shape != strange.shape:
        raise BenchmarkRefused(f"`scores` must be one number per image, {strange.size}; got {values.shape}.")
    if not np.isfinite(values).all():
        raise BenchmarkRefused("`scores` must be finite; got NaN or infinity.")
    if strange.all() or not strange.any():
        raise BenchmarkRefused("The test images must be of both kinds, normal and strange; got one kind.")
    return values, strange


def expected_calibration_error(confidences: ArrayLike, is_right: ArrayLike, bins: int = 15) -> float:
    """How far the share of right answers lies from what was claimed, averaged over bins of equal width of the claim.

    Shapes: confidences (n,) in [0, 1], is_right (n,) bool.
    Units:  [0, 1]; 0 is as sure as right.

    Raises:
        BenchmarkRefused: there is no answer.

    >>> expected_calibration_error([0.8, 0.8, 0.8, 0.8], [True, True, True, False])
    0.05
    """
    claimed, right = np.asarray(confidences, np.float64), np.asarray(is_right, np.bool_)
    if not claimed.size or claimed.shape != right.shape:
        raise BenchmarkRefused(f"`confidences` must hold one number for each answer; got {claimed.size}.")
    places = np.minimum((claimed * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(places, claimed - right, bins)
    return float(round(np.abs(gaps).sum() / claimed.size, 12))
