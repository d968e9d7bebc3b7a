"""Multinomial logistic regression, solved quickly enough to be solved afresh at every change.

Letters: N rows (examples), C classes, D features, R directions in which the rows differ.

The problem. Minimise over weights W (C, D) and intercepts b (C,)

    sum over rows i of  log(sum over classes j of exp(w_j x_i + b_j)) - (w_y x_i + b_y)   +   |W|^2 / (2 c)

with y the class of row i and the intercepts free: the objective of scikit-learn's `LogisticRegression(C=c)`, and
strictly convex in W, so that the answer does not depend on where the search begins.

Why it is quick. Free intercepts make W independent of the origin, so the rows are centred first. W lies in the span
of the centred rows, so they are turned onto their R principal directions, with R < N when examples are few. And on
unit-length rows W stays so small that the curvature hardly moves from what it is at W = 0, where it is known:
(share of class j) h_r + 1 / c for class j and direction r, h_r the rows' squared length along r. Scaled by that, and
begun at the Newton step from W = 0, L-BFGS ends after some five evaluations.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

DOUBLE_WORK = 2**25
"""Largest N * C * R computed in float64; above it products are float32, which is twice as fast."""

TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}
"""Largest gradient that ends the search, in the scaled coordinates."""

ITERATIONS_MAX = 1000

_RANK_TOLERANCE = 1e-12  # of the largest squared length: smaller directions are rounding


@dataclass(frozen=True, slots=True)
class Separators:
    """What tells classes apart: a direction and an intercept for each, about a common centre."""

    centre: NDArray[np.float32]
    """(D,)"""
    weights: NDArray[np.float32]
    """(C, D)"""
    intercepts: NDArray[np.float64]
    """(C,); -inf for a class without rows"""

    def logits(self, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of the classes for one vector, up to a constant.

        Shapes: (D,) -> (C,).
        Order:  one vector at a time, so that no other can change a bit.
        """
        found: NDArray[np.float64] = (self.weights @ (vector - self.centre)) + self.intercepts
        return found


class RegressionProblem:
    """The regression on a set of rows, ready to be solved on all of them or on a part."""

    def __init__(self, rows: NDArray[np.float32], classes: NDArray[np.int64], n_classes: int, c: float) -> None:
        """Shapes: rows (N, D), classes (N,) ascending, numbers from 0 to C - 1."""
        self._classes = classes
        self._n_classes = n_classes
        self._penalty = 1.0 / c
        self._centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = (rows - self._centre).astype(np.float64)
        self._squares, self._directions = _principal(centred)
        work = rows.shape[0] * n_classes * self._squares.size
        self._dtype = np.dtype(np.float64 if work <= DOUBLE_WORK else np.float32)
        self._rows = (centred @ self._directions).astype(self._dtype)

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""
        return int(self._rows.nbytes + self._directions.nbytes)

    def solve(self, used: NDArray[np.bool_] | None = None) -> Separators:
        """The separators of the rows used (all, unless said): no other row has any influence on them.

        Rows of a part weigh more each, so that together they weigh as all would: the weights then come out as large
        as those of the whole, and what is learnt from a part about their scale holds for the whole.

        Shapes: used (N,).
        Order:  the same rows give the same bits.
        """
        rows = self._rows if used is None else self._rows[used]
        classes = self._classes if used is None else self._classes[used]
        present, numbered, counts = np.unique(classes, return_inverse=True, return_counts=True)
        weights = np.zeros((self._n_classes, self._centre.size), np.float32)
        intercepts = np.full(self._n_classes, -np.inf)
        intercepts[present] = 0.0
        if present.size > 1:
            penalty = self._penalty * rows.shape[0] / self._rows.shape[0]
            turned, intercepts[present] = self._minimum(rows, numbered, counts, penalty)
            weights[present] = turned @ self._directions.T
        return Separators(self._centre, weights, intercepts)

    def _minimum(
        self, rows: NDArray[np.floating], classes: NDArray[np.int64], counts: NDArray[np.int64], penalty: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (C, R) along the principal directions, and intercepts (C,)."""
        n = rows.shape[0]
        shares = counts / n
        scale = 1.0 / np.sqrt(shares[:, None] * self._squares + penalty)
        scale_of_intercepts = 1.0 / np.sqrt(counts)
        # At W = 0 the best intercepts are the logarithms of the shares, up to a constant that changes nothing.
        intercepts = np.log(shares) - np.log(shares).mean()
        firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(rows, firsts, axis=0, dtype=np.float64)
        start = (sums - shares[:, None] * sums.sum(axis=0)) * scale  # the Newton step from W = 0, scaled
        places = np.arange(n)
        quick = scale.astype(self._dtype)
        penalties = (penalty * scale**2).astype(self._dtype)

        def objective(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = scaled[: sums.size].reshape(sums.shape).astype(self._dtype)
            free = (scaled[sums.size :] * scale_of_intercepts).astype(self._dtype)
            logits = rows @ (weights * quick).T + free
            logits -= logits.max(axis=1, keepdims=True)
            of_own = logits[places, classes].astype(np.float64)
            likely = np.exp(logits, out=logits)
            total = likely.sum(axis=1, keepdims=True)
            penalised = penalties * weights
            loss = np.log(total.astype(np.float64)).sum() - of_own.sum() + 0.5 * float(np.vdot(penalised, weights))
            likely /= total
            likely[places, classes] -= 1.0
            slope = (likely.T @ rows) * quick + penalised
            slope_of_free = likely.sum(axis=0, dtype=np.float64) * scale_of_intercepts
            return float(loss), np.concatenate([slope.ravel().astype(np.float64), slope_of_free])

        found = minimize(  # type: ignore[no-untyped-call]
            objective,
            np.concatenate([start.ravel(), intercepts / scale_of_intercepts]),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": TOLERANCE[self._dtype], "ftol": 0.0, "maxiter": ITERATIONS_MAX, "maxcor": 5},
        )
        return found.x[: sums.size].reshape(sums.shape) * scale, found.x[sums.size :] * scale_of_intercepts


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from logits along the last axis.

    >>> softmax(np.log([1.0, 3.0])).round(6).tolist()
    [0.25, 0.75]
    """
    shares: NDArray[np.float64] = np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))
    return shares


def _principal(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared lengths (R,) of the rows along their principal directions, and these directions (D, R)."""
    n, width = centred.shape
    if n <= width:
        squares, mixes = np.linalg.eigh(centred @ centred.T)
        kept = squares > max(squares[-1], 0.0) * _RANK_TOLERANCE
        directions = (centred.T @ mixes[:, kept]) / np.sqrt(squares[kept])
    else:
        squares, directions = np.linalg.eigh(centred.T @ centred)
        kept = squares > max(squares[-1], 0.0) * _RANK_TOLERANCE
        directions = directions[:, kept]
    return squares[kept], directions
