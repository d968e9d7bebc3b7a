"""Principal component analysis of a bank, exact and repeatable, with a weight per image where one is wanted.

Letters: B images, N reference images, D features, K kept directions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

RANK_TOLERANCE = 1e-10
"""Variance, as a share of the largest, below which a direction is rounding and not kept."""


@dataclass(frozen=True, slots=True)
class Directions:
    """Principal directions, largest variance first."""

    mean: NDArray[np.float64]
    """(D,)"""
    components: NDArray[np.float64]
    """(K, D), orthonormal rows; the entry largest in size is positive."""
    variances: NDArray[np.float64]
    """(K,), above zero"""


def principal_directions(
    rows: NDArray[np.floating], most: int, weights: NDArray[np.float64] | None = None
) -> Directions:
    """The directions of largest variance: at most `most`, fewer where the rows span fewer.

    Shapes: rows (N, D), N >= 2, weights (N,) from 0 to 1, each row counting for so much of itself, with a sum
            above 1 -> K <= min(most, N - 1, D); K = 0 for rows that are all equal.
    Memory: the smaller of N x N and D x D in float64, beside a float64 copy of the rows.
    """
    exact: NDArray[np.float64] = np.asarray(rows, dtype=np.float64)
    n, width = exact.shape
    counts = np.ones(n) if weights is None else weights
    mean = (counts @ exact) / counts.sum()
    centred = (exact - mean) * np.sqrt(counts)[:, None]
    few_rows = n < width  # then the products of rows have the same variances in a smaller matrix
    square = (centred @ centred.T if few_rows else centred.T @ centred) / (counts.sum() - 1)
    asked = min(most, n - 1, width)
    found, vectors = eigh(square, subset_by_index=(len(square) - asked, len(square) - 1))
    # Equal rows leave variances of rounding size, which the scale of the rows themselves tells apart.
    floor = max(RANK_TOLERANCE * float(found[-1]), 1e-24 * float(np.square(exact).sum(axis=1).max()))
    kept = np.flatnonzero(found > floor)[::-1]
    components: NDArray[np.float64]
    if few_rows:
        components = (centred.T @ vectors[:, kept]).T
        components /= np.sqrt(np.square(components).sum(axis=1, keepdims=True))
    else:
        components = vectors[:, kept].T.copy()
    largest = np.abs(components).argmax(axis=1) if kept.size else np.zeros(0, dtype=np.int64)
    components *= np.where(components[np.arange(kept.size), largest] < 0, -1.0, 1.0)[:, None]
    return Directions(mean=mean, components=components, variances=found[kept])


def coordinates_and_residuals(
    rows: NDArray[np.floating], directions: Directions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates along the directions, and the squared length of what no direction holds.

    Shapes: rows (B, D) -> coordinates (B, K), residuals (B,).
    Order:  each row by itself: the same bits alone and in any batch.
    """
    coordinates = np.zeros((len(rows), len(directions.variances)))
    residuals = np.zeros(len(rows))
    for number, row in enumerate(rows):
        centred = row.astype(np.float64) - directions.mean
        coordinates[number] = directions.components @ centred
        left = centred - coordinates[number] @ directions.components
        residuals[number] = left @ left
    return coordinates, residuals
