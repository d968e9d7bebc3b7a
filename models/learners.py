"""Divide and conquer: slices of an embedding as learners, and clusters that keep theirs when all is divided anew.

Sanakoyeu, Tschernezki, Buechler, Ommer 2019, "Divide and Conquer the Embedding Space for Metric Learning",
arXiv:1906.05990.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]

Members = NDArray[np.int64]


def slices_of(width: int, count: int) -> list[slice]:
    """As many consecutive slices of so many columns, as even as can be.

    >>> slices_of(10, 3)
    [slice(0, 3, None), slice(3, 7, None), slice(7, 10, None)]
    """
    ends = np.linspace(0, width, count + 1).round().astype(int)
    return [slice(int(start), int(stop)) for start, stop in pairwise(ends)]


def matched(before: list[Members], found: list[Members]) -> list[Members]:
    """The new clusters in the order of the old ones that they share most with.

    Shapes: K clusters and K clusters of the same rows -> K.
    Source: Sanakoyeu et al. 2019, arXiv:1906.05990: a linear assignment by intersection over union.
    """
    shared = np.array([[_overlap(old, new) for new in found] for old in before])
    _, columns = linear_sum_assignment(shared, maximize=True)
    return [found[place] for place in columns]


def _overlap(first: Members, second: Members) -> float:
    both = np.intersect1d(first, second, assume_unique=True).size
    return both / max(first.size + second.size - both, 1)
