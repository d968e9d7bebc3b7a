"""Mean, shrunk covariance, and the distance they define."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from sklearn.covariance import LedoitWolf

SHRINKAGE_MIN = 1e-9
"""A covariance of fewer images than features cannot be inverted; so much of the mean variance always can."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A normal distribution, held so that distances cost one product."""

    mean: NDArray[np.float64]
    """(D,)"""
    whitening: NDArray[np.float64]
    """(D, D) lower triangular; the covariance is the inverse of its transpose times itself."""
    shrinkage: float
    """Share of the covariance that is the mean variance times the identity."""


def gaussian(vectors: NDArray[np.float32], shrinkage: float | None) -> Gaussian:
    """The Gaussian of these vectors: (1 - s) S + s tr(S)/D I, with the s of Ledoit and Wolf unless it is given.

    Shapes: vectors (N, D), N >= 2.
    Units:  `shrinkage` in [0, 1].

    Source: Ledoit, Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    rows = vectors.astype(np.float64)
    width = rows.shape[1]
    mean = rows.mean(axis=0)
    # Centred before scikit-learn sees them, so that one mean serves both.
    centred = rows - mean
    if shrinkage is None:
        estimator = LedoitWolf(assume_centered=True, store_precision=False)  # type: ignore[no-untyped-call]
        shrinkage = float(estimator.fit(centred).shrinkage_)
    covariance = centred.T @ centred / len(rows)
    variance = float(np.trace(covariance)) / width
    used = max(shrinkage, SHRINKAGE_MIN)
    shrunk = (1.0 - used) * covariance
    shrunk[np.diag_indices(width)] += used * variance
    if variance == 0.0:  # images that are all alike have no spread: any deviation counts, in the vectors' own unit
        used, shrunk = 1.0, np.eye(width)
    factor = cholesky(shrunk, lower=True)
    whitening = solve_triangular(factor, np.eye(width), lower=True)
    return Gaussian(mean, whitening, used)


def distances(vectors: NDArray[np.float32], model: Gaussian) -> NDArray[np.float64]:
    """Mahalanobis distance of each vector from the mean.

    Shapes: vectors (B, D) -> (B,).
    Units:  standard deviations; [0, inf).
    Order:  each row by itself, so that its bits do not depend on its mates.
    """
    centred = vectors.astype(np.float64) - model.mean
    return np.array([float(np.linalg.norm(model.whitening @ row)) for row in centred], np.float64)


def distance_slopes(vectors: NDArray[np.float32], model: Gaussian) -> NDArray[np.float64]:
    """The gradient of each distance with respect to its vector; 0 at the mean itself, where there is none.

    Shapes: vectors (B, D) -> (B, D).
    Units:  standard deviations per unit of the vectors.
    """
    found = np.zeros(vectors.shape, np.float64)
    for place, centred in enumerate(vectors.astype(np.float64) - model.mean):
        whitened = model.whitening @ centred
        length = float(np.linalg.norm(whitened))
        if length > 0.0:
            found[place] = model.whitening.T @ whitened / length
    return found
