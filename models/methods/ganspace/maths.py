"""Principal directions of activations, the terms of a score along them, and the basis that carries them to latents.

Letters: B images, N reference images, D activations, K kept directions, Z latent width.
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


def principal_directions(rows: NDArray[np.floating], most: int) -> Directions:
    """The directions of largest variance: at most `most`, fewer where the rows span fewer.

    Shapes: rows (N, D), N >= 2 -> K <= min(most, N - 1, D); K = 0 for rows that are all equal.
    Memory: the smaller of N x N and D x D in float64, beside a float64 copy of the rows.

    Source:  principal component analysis, as in Härkönen, Hertzmann, Lehtinen, Paris 2020, arXiv:2004.02546.
    """
    exact: NDArray[np.float64] = np.asarray(rows, dtype=np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    n, width = centred.shape
    few_rows = n < width  # then the products of rows have the same variances in a smaller matrix
    square = (centred @ centred.T if few_rows else centred.T @ centred) / (n - 1)
    asked = min(most, n - 1, width)
    found, vectors = eigh(square, subset_by_index=(len(square) - asked, len(square) - 1))
    # Equal rows leave variances of rounding size, which the scale of the rows themselves tells apart.
    floor = max(RANK_TOLERANCE * float(found[-1]), 1e-24 * float(np.square(exact).sum(axis=1).max()))
    kept = np.flatnonzero(found > floor)[::-1]
    components: NDArray[np.float64]
    if few_rows:
        components = (centred.T @ vectors[:, kept]).T
        components /= np.linalg.norm(components, axis=1, keepdims=True)
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


def latent_basis(coordinates: NDArray[np.float64], latents: NDArray[np.float64]) -> NDArray[np.float64]:
    """U, which turns coordinates of an early layer into a change of the latent: arg min of sum ||U x - z||^2.

    Shapes: coordinates (N, K) of centred activations, latents (N, Z) -> (Z, K).

    Source:  Härkönen, Hertzmann, Lehtinen, Paris 2020, arXiv:2004.02546, the section on BigGAN.
    """
    solution, *_ = np.linalg.lstsq(coordinates, latents, rcond=None)
    basis: NDArray[np.float64] = np.asarray(solution.T, dtype=np.float64)
    return basis
