"""Whether a quicker engine may stand in for float32: measured on generated images before it serves any.

Two questions are asked of the same images, with torch in float32 as the judge. How far does each vector turn (its
cosine to the judge's)? And how far do anomaly scores move: the bank is one half of the images, the other half is
scored against it by the mean distance to the two nearest, and the shift is told as a share of the interquartile range
of the bank's own leave-one-out scores, which is the scale that verdicts live on.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.backbones.engine import POOLED, Engine
from models.backbones.kept import kept
from models.backbones.made_images import made_images
from models.preprocessing import Preprocessing

EDITION = 1
SEED = 20_250_101
BATCH = 8
IMAGES = 48
IMAGES_FLOAT32 = BATCH  # float32 differs by rounding alone: one batch tells a wrong network from a right one
NEIGHBOURS = 2

# float32 engines sum in another order, no more.
FLOAT32_GAP = 1e-4
# Whoever passes these may be mixed with float32 in one collection.
COSINE_MIN = 0.999
SHIFT_MAX = 0.01  # root mean square, of the interquartile range
SHIFT_MAX_WORST = 0.05  # of any one image
# int8 that passes no more than this serves a collection of its own.
COSINE_MIN_APART = 0.97


@dataclass(frozen=True, slots=True)
class Parity:
    """How one engine compares with torch in float32 on the generated images."""

    images: int
    cosine_min: float
    gap_max: float  # length of the difference over the length of the judge's vector
    shift_rms: float  # of scores, as a share of the interquartile range of calibration scores
    shift_max: float

    @property
    def is_float32(self) -> bool:
        """Equal but for the order of sums."""
        return self.gap_max <= FLOAT32_GAP

    @property
    def is_comparable(self) -> bool:
        """Close enough to be mixed with float32: no verdict changes but at the very threshold."""
        return self.cosine_min >= COSINE_MIN and self.shift_rms <= SHIFT_MAX and self.shift_max <= SHIFT_MAX_WORST

    @property
    def is_usable_apart(self) -> bool:
        """Close enough to be of use in a collection of its own."""
        return self.cosine_min >= COSINE_MIN_APART

    def describe(self) -> dict[str, float]:
        """The figures, as plain JSON values."""
        return asdict(self)


def measure_parity(candidate: Engine, judge: Engine, preprocessing: Preprocessing) -> Parity:
    """The candidate's vectors of the generated images against the judge's.

    Memory: one batch of images at a time.
    """
    count = IMAGES_FLOAT32 if candidate.precision == "float32" else IMAGES
    found: list[NDArray[np.float32]] = []
    expected: list[NDArray[np.float32]] = []
    pixels = made_images(count, preprocessing.image_size, SEED)
    for start in range(0, count, BATCH):
        batch = np.stack([preprocessing.apply(one) for one in pixels[start : start + BATCH]])
        found.append(candidate.run(batch, (POOLED,))[POOLED])
        expected.append(judge.run(batch, (POOLED,))[POOLED])
    return compare(np.concatenate(found), np.concatenate(expected))


def compare(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Parity:
    """How one engine's vectors compare with the judge's of the same images; the first half is the bank.

    Shapes: both (n, width), n at least 6. A vector that is not finite fails every bar.
    """
    assert found.shape == expected.shape and len(found) >= 2 * (NEIGHBOURS + 1)
    if not np.isfinite(found).all():
        return Parity(len(found), -1.0, float("inf"), float("inf"), float("inf"))
    half = len(found) // 2
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    gap = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    ours, theirs = _unit(ours), _unit(theirs)
    own = _scores(theirs[:half], theirs[:half], leave_one_out=True)
    spread = float(np.subtract(*np.percentile(own, [75, 25])))
    truth = _scores(theirs[half:], theirs[:half])
    # The bank may have been computed by either.
    shifts = np.concatenate([np.abs(_scores(ours[half:], bank[:half]) - truth) for bank in (theirs, ours)]) / max(
        spread, np.finfo(np.float64).tiny
    )
    return Parity(
        images=len(found),
        cosine_min=float(np.sum(ours * theirs, axis=1).min()),
        gap_max=float(gap.max()),
        shift_rms=float(np.sqrt(np.mean(shifts**2))),
        shift_max=float(shifts.max()),
    )


def kept_parity(path: Path | None, measure: Callable[[], Parity]) -> Parity:
    """What was measured before and written to this file; else measured now and written. None keeps nothing."""
    return kept(path, lambda told: Parity(**told), measure, Parity.describe)


def _scores(
    queries: NDArray[np.float64], bank: NDArray[np.float64], leave_one_out: bool = False
) -> NDArray[np.float64]:
    distances = 1.0 - queries @ bank.T
    if leave_one_out:
        np.fill_diagonal(distances, np.inf)
    nearest: NDArray[np.float64] = np.sort(distances, axis=1)[:, :NEIGHBOURS]
    scores: NDArray[np.float64] = nearest.mean(axis=1)
    return scores


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
