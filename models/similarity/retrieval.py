"""How well an embedding brings images of one class together: P@1, R-precision and MAP@R."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.distances import unit_rows
from models.similarity.library import AccuracyCalculator

IMAGES_MAX = 4000
"""More are not compared with one another: the first rows of each class stand for it."""
MEASURES = {"precision_at_1": "precision_at_1", "r_precision": "r_precision", "map_at_r": "mean_average_precision_at_r"}


@dataclass(frozen=True, slots=True)
class Figures:
    """Each from 0 to 1, larger = better, mean over images."""

    precision_at_1: float
    """Share of images whose nearest is of their class."""
    r_precision: float
    """Of an image's R nearest, where R others are of its class, the share that is."""
    map_at_r: float
    """The same, with precision at each hit: nearer hits count more."""


def figures(
    vectors: NDArray[np.float32], classes: NDArray[np.int64], *, most: int = IMAGES_MAX, asked: int | None = None
) -> Figures:
    """Figures of every image, or of the first `asked`, against all others, by cosine.

    Shapes: vectors (N, D), classes (N,), two images or more of some class.
    Ties:   the lower row is nearer.
    Memory: N x N float32 for at most `most` images; of more, so many of each class count that there are no more.

    Source: Musgrave, Belongie, Lim 2020, arXiv:2003.08505, MAP@R; computed by pytorch-metric-learning.
    """
    kept = _kept(classes, most)
    rows = torch.from_numpy(unit_rows(vectors[kept]))
    labels = torch.from_numpy(classes[kept])
    found = _CALCULATOR.get_accuracy(rows[:asked], labels[:asked], rows, labels, ref_includes_query=True)
    return Figures(**{name: float(found[theirs]) for name, theirs in MEASURES.items()})


def _kept(classes: NDArray[np.int64], all_in_all: int) -> NDArray[np.int64]:
    if classes.size <= all_in_all:
        return np.arange(classes.size)
    order = np.argsort(classes, kind="stable")
    counts = np.unique(classes, return_counts=True)[1]
    place = np.arange(classes.size) - np.repeat(np.cumsum(counts) - counts, counts)  # of a row within its class
    most = 2
    while np.minimum(counts, most + 1).sum() <= all_in_all:
        most += 1
    return np.sort(order[place < most])


def _nearest(query: Tensor, k: int, reference: Tensor, ref_includes_query: bool = False) -> tuple[Tensor, Tensor]:
    """The k nearest others of each row; a copy of an image is another image, never taken for the image itself."""
    assert ref_includes_query
    near = query @ reference.T
    near.fill_diagonal_(-torch.inf)
    found = torch.argsort(near, dim=1, descending=True, stable=True)[:, :k]
    return 1 - near.gather(1, found), found


_CALCULATOR = AccuracyCalculator(
    include=tuple(MEASURES.values()), k="max_bin_count", knn_func=_nearest, device=torch.device("cpu")
)
