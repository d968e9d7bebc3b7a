"""Dropping the strangest part of a bank that may hold anomalies: the paper's unsupervised setting.

Each image is scored against the rest of the bank, never against itself, and the worst share is dropped.

How many neighbours. Strangers seldom come alone: a bank of birds into which boats, trucks and cats have strayed
holds many boats, and with k = 2 every boat finds two others that vouch for it. A cleaning pass therefore averages
over as many neighbours as it drops: strangers that are fewer than that cannot fill each other's lists.

What cleaning does to the promise. The images that stay were chosen for small scores, so leave-one-out
scores among them are too small and new normal images alarm more often than promised. Either set calibration
images aside before choosing (`set_aside`; if anomalies are among them the verdict errs towards fewer
alarms), or keep the leave-one-out calibration and say that it is `biased`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ParameterInvalid
from models.leave_one_out import Progress
from models.methods.dn2.method import K_OF_CLEANING_MAX, LiveDN2

FRACTION_MAX = 0.5
"""Most that may be dropped: beyond it the anomalies would be the majority, and the majority is what normal
means."""

BIASED = "biased: more false alarms than promised"
"""The promise of a leave-one-out calibration among images that were chosen for their small scores."""

_ROUNDING_SLACK = 1e-9  # 0.29 * 100 must count as 29


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What a cleaning pass found. Nothing has been removed yet."""

    dropped: NDArray[np.int64]
    """Ids to drop, strangest first."""
    ids: NDArray[np.int64]
    """(N,) everything that was scored, ascending."""
    scores: NDArray[np.float32]
    """(N,) leave-one-out scores, in the order of `ids`; larger = stranger."""
    promise: str = BIASED
    """What a leave-one-out calibration is worth once the images are dropped."""


def clean(ids: NDArray[np.int64], scores: NDArray[np.float32], fraction: float) -> NDArray[np.int64]:
    """Ids of the strangest floor(fraction * N) images, strangest first.

    Shapes: ids (N,), scores (N,) -> (floor(fraction * N),).
    Ties:   the lowest ids are kept.

    Raises:
        ParameterInvalid: `fraction` is not from 0 to 0.5, or the two lengths differ.

    Source: Bergman, Cohen, Hoshen 2020, arXiv:2002.10445, the unsupervised setting.

    >>> clean(np.array([7, 8, 9, 10]), np.array([0.1, 0.9, 0.2, 0.9], dtype=np.float32), 0.25).tolist()
    [10]
    """
    if not 0.0 <= fraction <= FRACTION_MAX:
        raise ParameterInvalid(f"`fraction` of cleaning must be from 0 to {FRACTION_MAX}; got {fraction}.")
    if ids.shape != scores.shape:
        raise ParameterInvalid(f"`scores` of cleaning must be one per id, {ids.size}; got {scores.size}.")
    count = int(np.floor(fraction * ids.size + _ROUNDING_SLACK))
    strangest_first = np.lexsort((-ids, -scores.astype(np.float64)))
    return ids[strangest_first[:count]]


def cleaning_k(images: int, fraction: float) -> int:
    """Neighbours that cleaning averages unless told otherwise: as many as it drops, from 2 to 512.

    Differs: the paper scores with the k of detection; see the top of this module.
    """
    return max(2, min(int(np.ceil(fraction * images - _ROUNDING_SLACK)), K_OF_CLEANING_MAX))


def cleaned(scorer: LiveDN2, fraction: float, *, k: int | None = None, progress: Progress | None = None) -> Cleaning:
    """Which images of a live bank to drop, every image judged by the others; `k` unset is `cleaning_k`.

    Raises:
        ParameterInvalid: `fraction` or `k` is out of range.
        BankTooSmall: there are no others.
    """
    clean(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), fraction)  # refuse before the long work
    used_k = cleaning_k(len(scorer.bank), fraction) if k is None else k
    ids, scores = scorer.leave_one_out(used_k, progress=progress)
    return Cleaning(dropped=clean(ids, scores, fraction), ids=ids, scores=scores)


def set_aside(
    ids: NDArray[np.int64], keys: NDArray[np.uint64], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Calibration images chosen by key alone, before any image is scored, and the rest.

    Shapes: ids (N,), keys (N,) -> (floor(share * N),), (N - floor(share * N),), both ascending.

    Raises:
        ParameterInvalid: `share` is not from 0 to 0.5.
    """
    if not 0.0 <= share <= 0.5:
        raise ParameterInvalid(f"`share` of images set aside must be from 0 to 0.5; got {share}.")
    count = int(np.floor(share * ids.size + _ROUNDING_SLACK))
    by_key = np.lexsort((ids, keys))
    return np.sort(ids[by_key[:count]]), np.sort(ids[by_key[count:]])
