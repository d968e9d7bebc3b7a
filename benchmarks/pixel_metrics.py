"""How well heat maps tell defective pixels from others: pure functions of maps and masks of one shape."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label  # type: ignore[attr-defined]

from benchmarks.errors import BenchmarkRefused
from benchmarks.metrics import roc_auc

FPR_MAX = 0.3
TOUCHING = np.ones((3, 3), np.int64)  # pixels that touch at a corner are of one region

Maps = Sequence[NDArray[np.floating]]
Masks = Sequence[NDArray[np.bool_]]


def pixel_roc_auc(maps: Maps, masks: Masks) -> float:
    """Probability that a defective pixel of any image is hotter than one that is not.

    Shapes: n maps (H, W) and masks of the same shapes.
    Units:  [0, 1]; 0.5 is guessing.

    Raises:
        BenchmarkRefused: no pixel is defective, or all are.
    """
    return roc_auc(*(np.concatenate([one.ravel() for one in many]) for many in (maps, masks)))


def region_overlap(maps: Maps, masks: Masks, fpr_max: float = FPR_MAX) -> float:
    """Per-region overlap: the share of each defective region that is found, averaged over regions of whatever size,
    over the rates of false pixels from 0 to `fpr_max`.

    Shapes: n maps (H, W) and masks of the same shapes.
    Units:  [0, 1]; guessing gives `fpr_max` / 2.
    Ties:   equally hot pixels are found together.

    Raises:
        BenchmarkRefused: no pixel is defective, or all are.

    Source: Bergmann et al. 2020, "Uninformed Students", section on the per-region-overlap metric.
    """
    shares, is_clean, n_regions = [], [], 0
    for mask in masks:
        regions, count = label(mask, TOUCHING)
        n_regions += count
        sizes = np.bincount(regions.ravel(), minlength=count + 1).astype(np.float64)
        sizes[0] = np.inf  # no region: adds nothing
        shares.append(1.0 / sizes[regions.ravel()])
        is_clean.append(~mask.ravel())
    heat = np.concatenate([one.ravel() for one in maps]).astype(np.float64)
    share, clean = np.concatenate(shares), np.concatenate(is_clean)
    if not n_regions or not clean.any():
        raise BenchmarkRefused("The masks must mark some pixels and not all; got one kind.")
    order = np.argsort(-heat, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(heat[order])), heat.size - 1)
    overlap = np.append(0.0, np.cumsum(share[order])[last_of_tie] / n_regions)
    rate = np.append(0.0, np.cumsum(clean[order])[last_of_tie] / clean.sum())
    return _area(rate, overlap, fpr_max) / fpr_max


def _area(x: NDArray[np.float64], y: NDArray[np.float64], end: float) -> float:
    """Under the line through the points from 0 to `end`; x ascends, where it stands still the line rises."""
    inside = x <= end
    first_beyond = int(inside.sum())
    if first_beyond < x.size:
        before = first_beyond - 1
        share = (end - x[before]) / (x[first_beyond] - x[before])
        at_end = y[before] + share * (y[first_beyond] - y[before])
        x, y = np.append(x[inside], end), np.append(y[inside], at_end)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2.0))
