"""Cells of a grid over an image: what the maps attribute a score to, and images of which some cells are covered.

Letters: G cells a side, M = G * G cells, S pixels a side, n images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Score = Callable[[Floats], NDArray[np.float64]]
"""Pixels (n, 3, S, S) as the network is fed -> (n,) the number to be explained, each from its image alone."""

BATCH = 16
"""Images scored at once."""
BLUR_SHARE = 1 / 8
"""Standard deviation of the blurred baseline, as a share of the image's side."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """How much each cell of an image has to do with its score."""

    values: NDArray[np.float64]
    """(G, G) in the unit of the score; positive = the cell raises it."""
    value: float
    """The score of the image."""
    baseline_value: float
    """The score with every cell covered."""
    evaluations: int
    """Images scored, or differentiated."""


class Cells:
    """A grid of G x G cells over an image and its baseline, which covers the cells that are absent."""

    def __init__(self, image: Floats, baseline: Floats, grid: int) -> None:
        """Shapes: image and baseline (3, S, S), S >= G."""
        side = image.shape[1]
        edges = np.arange(side) * grid // side
        self.grid = grid
        self.numbers: NDArray[np.int64] = edges[:, None] * grid + edges[None, :]
        """(S, S) the number of each pixel's cell, row by row."""
        self._image = image
        self._baseline = baseline

    def __len__(self) -> int:
        return self.grid * self.grid

    def covered(self, present: NDArray[np.bool_]) -> Floats:
        """The image with its absent cells taken from the baseline.

        Shapes: present (n, M) -> (n, 3, S, S).
        """
        shown: Floats = np.where(present[:, self.numbers][:, None], self._image, self._baseline)
        return shown

    def scores(self, score: Score, present: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The score of each such image, 16 at a time.

        Shapes: present (n, M) -> (n,).
        """
        parts = [score(self.covered(present[rows])) for rows in _batches(len(present))]
        return np.concatenate(parts) if parts else np.zeros(0)

    def sums(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """What the pixels of each cell add up to.

        Shapes: pixels (S, S) -> (G, G).
        """
        flat = np.zeros(len(self), np.float64)
        np.add.at(flat, self.numbers.ravel(), pixels.ravel())
        return flat.reshape(self.grid, self.grid)


def blurred(image: Floats) -> Floats:
    """The image without its details: every cell still has its own colour.

    Shapes: (3, S, S) -> the same.
    """
    sigma = BLUR_SHARE * image.shape[1]
    found: Floats = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")  # type: ignore[attr-defined]
    return found


def mean_colour(image: Floats) -> Floats:
    """The image's mean colour everywhere.

    Shapes: (3, S, S) -> the same.
    """
    return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape).copy()


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH):
        yield slice(start, start + BATCH)
