"""Isotonic regression by pooling adjacent violators: the blocks of a non-increasing fit.

Letters: n values.
"""

import math
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Regularisation(StrEnum):
    """What keeps a projection on the permutahedron smooth."""

    QUADRATIC = "quadratic"
    ENTROPIC = "entropic"


def quadratic_blocks(s: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.int64]:
    """The block of each place in arg min over v_1 >= ... >= v_n of sum of (v_i - (s_i - w_i))^2.

    The value of a block is the mean of s - w over it.

    Shapes: s (n,), w (n,) -> (n,) block numbers from 0, ascending.
    Cost:   O(n).

    Source: Blondel, Teboul, Berthet, Djolonga 2020, arXiv:2002.08871.
    """
    starts: list[int] = []
    means: list[float] = []
    for place, value in enumerate((s - w).tolist()):
        start, mean = place, value
        while means and means[-1] <= mean:
            before, after = start - starts[-1], place + 1 - start
            mean = (means.pop() * before + mean * after) / (before + after)
            start = starts.pop()
        starts.append(start)
        means.append(mean)
    return np.repeat(np.arange(len(starts)), np.diff([*starts, len(s)]))


def entropic_blocks(s: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.int64]:
    """The block of each place in arg min over v_1 >= ... >= v_n of sum of exp(s_i - v_i) + exp(w_i) v_i.

    The value of a block is log sum exp(s) - log sum exp(w) over it.

    Shapes: s (n,), w (n,) -> (n,) block numbers from 0, ascending.
    Cost:   O(n).

    Source: Blondel, Teboul, Berthet, Djolonga 2020, arXiv:2002.08871.
    """
    starts: list[int] = []
    sums: list[tuple[float, float]] = []  # log sum exp of s and of w, block by block
    for place, value in enumerate(zip(s.tolist(), w.tolist(), strict=True)):
        start, (log_s, log_w) = place, value
        while sums and sums[-1][0] - sums[-1][1] <= log_s - log_w:
            before_s, before_w = sums.pop()
            log_s, log_w = _log_add(before_s, log_s), _log_add(before_w, log_w)
            start = starts.pop()
        starts.append(start)
        sums.append((log_s, log_w))
    return np.repeat(np.arange(len(starts)), np.diff([*starts, len(s)]))


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high + math.log1p(math.exp(low - high))
