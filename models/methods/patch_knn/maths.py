"""Patches of feature maps, and what their distances say of the whole image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def neighbourhood_mean(cells: Floats, side: int) -> Floats:
    """Each cell's mean over the square of `side` cells around it, as far as it lies on the map.

    Shapes: cells (h, w, C), side odd -> (h, w, C).
    Order:  one addition after another in a fixed order, so that a map has the same bits in any company.

    Differs: the authors' code counts cells beyond the border as zeros, which dims the border of every map.
    """
    return _window_mean(_window_mean(cells, side, 0), side, 1)


def on_grid(cells: Floats, height: int, width: int) -> Floats:
    """A map interpolated bilinearly on another grid over the same image.

    Shapes: cells (h, w, C) -> (height, width, C).
    """
    return _interpolated(_interpolated(cells, height, 0), width, 1)


def patch_features(maps: Sequence[Floats], side: int) -> Floats:
    """Locally aware patch features of one image: the stages averaged over neighbourhoods, on the finest grid, joined.

    Shapes: S maps (h_s, w_s, C_s) -> (h, w, sum of C_s), h and w those of the map with most cells.

    Source: Roth et al. 2021, section "Locally aware patch features".
    """
    height, width = max((one.shape[:2] for one in maps), key=lambda shape: shape[0] * shape[1])
    joined: Floats = np.concatenate(
        [on_grid(neighbourhood_mean(np.asarray(one, np.float32), side), height, width) for one in maps], axis=2
    )
    return joined


def random_projection(width: int, dimensions: int, random: np.random.Generator) -> Floats:
    """A Gaussian matrix that keeps distances on average: relative standard deviation 1 / sqrt(2 dimensions).

    Shapes: -> (width, dimensions).

    Source: Johnson, Lindenstrauss 1984.
    """
    drawn: Floats = (random.standard_normal((width, dimensions)) / np.sqrt(dimensions)).astype(np.float32)
    return drawn


def reweighted(score: float, distance: float, support: Floats) -> float:
    """The score of the strangest patch, raised where its nearest remembered patch is itself a rare one.

    Shapes: `distance` to the nearest remembered patch, support (b,) distances of the same patch to the b remembered
            ones nearest to that one, itself among them.

    (1 - exp(distance) / sum of exp(support)) score; the largest exponent is taken out, so nothing overflows.

    Source: Roth et al. 2021, section "Anomaly detection with PatchCore".
    """
    exponents = support.astype(np.float64)
    top = max(float(exponents.max()), distance)
    share = np.exp(distance - top) / np.exp(exponents - top).sum()
    return max(0.0, 1.0 - float(share)) * score


def _window_mean(cells: Floats, side: int, axis: int) -> Floats:
    length, reach = cells.shape[axis], side // 2
    if reach == 0:
        return cells
    total = np.zeros_like(cells)
    count = np.zeros(length, np.float32)
    for shift in range(-reach, reach + 1):
        here = slice(max(0, -shift), max(0, min(length, length - shift)))
        there = slice(max(0, shift), max(0, min(length, length + shift)))
        total[_along(here, axis)] += cells[_along(there, axis)]
        count[here] += 1.0
    total /= count.reshape([-1 if one == axis else 1 for one in range(3)])
    return total


def _interpolated(cells: Floats, length: int, axis: int) -> Floats:
    had = cells.shape[axis]
    if had == length:
        return cells
    # Centres of cells lie at half numbers: both grids cover the image from edge to edge.
    place = np.clip((np.arange(length) + 0.5) * had / length - 0.5, 0.0, had - 1.0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, had - 1)
    share = (place - low).astype(np.float32).reshape([-1 if one == axis else 1 for one in range(3)])
    found: Floats = cells.take(low, axis) * (1 - share) + cells.take(high, axis) * share
    return found


def _along(part: slice, axis: int) -> tuple[slice, ...]:
    return (part,) if axis == 0 else (slice(None), part)
