"""The arithmetic of nearest-neighbour anomaly detection, as pure functions.

Letters: Q queries, K neighbours, D feature width.
"""

import numpy as np
from numpy.typing import NDArray

from index import Metric

FACTOR_MAX = 1000.0
"""Most by which a taught defect may multiply a score: keeps scores finite at distance zero."""


def mean_of_nearest(distances: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Mean of the first k distances of each row.

    Shapes: distances (Q, K), nearest first, K >= k -> (Q,) float64.
    Units:  those of the distances; larger = stranger.
    Order:  added one by one, nearest first, in float64: the same bits for a row alone and in any batch, and
            never smaller when a distance grows (rounding is monotone), which leave-one-out calibration
            relies on.

    Source:  Bergman, Cohen, Hoshen 2020, arXiv:2002.10445, section 3.
    Differs: the mean of distances rather than of squared distances; see the README of the method.

    >>> mean_of_nearest(np.array([[1.0, 3.0, 9.0]], dtype=np.float32), 2).tolist()
    [2.0]
    """
    total = np.zeros(distances.shape[0], dtype=np.float64)
    for column in range(k):
        total += distances[:, column]
    return total / k


def weighed_by_known_defects(plain: NDArray[np.float64], to_nearest_defect: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores raised for images that lie closer to a taught defect than to the normal images.

    score = d_n * min(1000, max(1, d_n / d_a)), d_n the plain score, d_a the distance to the nearest taught
    defect. Nothing changes where d_a >= d_n. The score never falls when d_n grows, so leave-one-out
    calibration with the same formula stays valid.

    Shapes: plain (Q,), to_nearest_defect (Q,), inf where none is taught -> (Q,) float64.
    Units:  those of the distances; larger = stranger.

    Differs: not in the paper, whose bank knows normal images only.

    >>> plain, defect = np.array([2.0, 2.0, 2.0]), np.array([4.0, 1.0, 0.0], dtype=np.float32)
    >>> weighed_by_known_defects(plain, defect).tolist()
    [2.0, 4.0, 2000.0]
    """
    divisor = to_nearest_defect.astype(np.float64)
    # At d_a = 0 the quotient is undefined; the factor is then its ceiling, and a score of 0 stays 0.
    ratio = np.full(plain.shape, FACTOR_MAX)
    np.divide(plain, divisor, out=ratio, where=divisor > 0)
    weighed: NDArray[np.float64] = plain * np.clip(ratio, 1.0, FACTOR_MAX)
    return weighed


def distance_slopes(query: NDArray[np.float64], rows: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """The gradient of the distances from a query to K rows with respect to the query.

    Shapes: query (D,), rows (K, D) -> (K, D).
    Units:  of a distance per unit of the vectors; 0 where the distance has no gradient (equal vectors, zero length).

    >>> distance_slopes(np.array([3.0, 4.0]), np.zeros((1, 2)), Metric.L2).tolist()
    [[0.6, 0.8]]
    """
    if metric is Metric.L2:
        difference = query - rows
        return _shares(difference, np.linalg.norm(difference, axis=1))
    length = np.linalg.norm(query)
    unit = _shares(query[None], np.atleast_1d(length))[0]
    units = _shares(rows, np.linalg.norm(rows, axis=1))
    return _shares((units @ unit)[:, None] * unit - units, np.full(len(rows), length))


def weighed_slopes(
    plain: float, slope: NDArray[np.float64], to_defect: float, slope_of_defect: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The gradient of `weighed_by_known_defects` from the gradients of its two distances.

    Shapes: slope (D,), slope_of_defect (D,) -> (D,).
    """
    if to_defect >= plain:
        return slope
    if plain >= FACTOR_MAX * to_defect:
        return FACTOR_MAX * slope
    ratio = plain / to_defect
    return 2.0 * ratio * slope - ratio**2 * slope_of_defect


def _shares(rows: NDArray[np.float64], lengths: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows divided by lengths; 0 where the length is 0."""
    shares: NDArray[np.float64] = np.divide(rows, lengths[:, None], out=np.zeros_like(rows), where=lengths[:, None] > 0)
    return shares


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its Euclidean length; a row of zeros stays as it is.

    Shapes: (Q, D) -> (Q, D) float32, a new array.
    Order:  each row by itself, in float64, so that batches change no bit.
    """
    exact = np.ascontiguousarray(vectors, dtype=np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=1))
    lengths[lengths == 0.0] = 1.0
    with np.errstate(invalid="ignore"):  # infinity over infinity is NaN, which the index refuses by name
        scaled: NDArray[np.float32] = (exact / lengths[:, None]).astype(np.float32)
    return scaled
