"""Whether p-values are still spread as those of normal images, told from counts alone.

A conformal p-value of an image like the calibration images is evenly spread over the multiples of 1 / (n + 1), but not
independently of the others: all share one calibration set, whose own luck they repeat. So the two questions asked here
are those of two samples, the images judged and the calibration images:

* is the whole distribution another one? Kolmogorov-Smirnov: the largest gap between the counted and the expected
  distribution function is that between the two samples' empirical distribution functions of the score.
* are there too many small p-values? Given n calibration images, the number of m images with p <= a follows the
  beta-binomial law, wider than the binomial by what n images leave unknown.

Both are asked of counts at fixed edges, so that months of answers are a few numbers an hour. Between edges a gap cannot
be seen: the first test can only be too mild for it, never too strict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln, gammaln, kolmogorov

from models.errors import ParameterInvalid

EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, *(round(0.05 * step, 2) for step in range(2, 21)))
"""P-values are counted up to and with each of these; the last is 1."""
IMAGES_MIN = 30
"""Fewer judged images show too little to be asked about."""
_SLACK = 1e-9  # as in models.judging: rates are decimal fractions
_TERMS_MAX = 200_000  # of a tail that is summed; beyond it the law of the share is as good as its limit


@dataclass(frozen=True, slots=True)
class Counted:
    """P-values counted at the edges, with what was to be expected of them."""

    counts: NDArray[np.int64]
    """(E,) p-values above the edge before and up to this one."""
    expected: NDArray[np.float64]
    """(E,) p-values up to each edge (all of them, not only since the edge before) that normal images would give."""
    calibration_n: int
    """Fewest calibration images behind any of them; 0 where nothing is counted."""

    @property
    def n(self) -> int:
        """How many are counted."""
        return int(self.counts.sum())

    def __add__(self, other: "Counted") -> "Counted":
        behind = [one.calibration_n for one in (self, other) if one.n]
        return Counted(self.counts + other.counts, self.expected + other.expected, min(behind, default=0))

    def up_to(self, edge: int) -> int:
        """How many p-values are at most the edge with this number."""
        return int(self.counts[: edge + 1].sum())


@dataclass(frozen=True, slots=True)
class Drift:
    """What the two tests say of counted p-values."""

    gap: float
    """Largest difference between the two distribution functions, in [-1, 1]; above 0: more small p-values."""
    gap_p_value: float
    """How often a gap at least as large comes about among images that are alike."""
    rate: float
    """The edge at which small p-values are counted."""
    seen: int
    """P-values up to the rate."""
    expected: float
    """As many were to be expected."""
    seen_p_value: float
    """How often at least as many come about among images that are alike."""

    @property
    def p_value(self) -> float:
        """How often either test says as much of images that are alike, at most."""
        return min(1.0, 2.0 * min(self.gap_p_value, self.seen_p_value))


def nothing_counted() -> Counted:
    """No p-values at all."""
    return Counted(np.zeros(len(EDGES), np.int64), np.zeros(len(EDGES)), 0)


def counted(p_values: ArrayLike, n: int) -> Counted:
    """P-values of images judged by `n` calibration images, counted.

    Shapes: p_values (m,) in (0, 1].

    Raises:
        ParameterInvalid: `n` is below 1, or a p-value lies outside (0, 1].

    >>> counted([0.01, 0.5, 1.0], 99).up_to(EDGES.index(0.5))
    2
    """
    values = np.asarray(p_values, np.float64)
    if n < 1:
        raise ParameterInvalid(f"`n` of counted must be at least 1; got {n}.")
    if values.size and not (values.min() > 0.0 and values.max() <= 1.0 + _SLACK):
        raise ParameterInvalid("`p_values` of counted must lie above 0 and up to 1.")
    places = np.searchsorted(EDGES, values - _SLACK)
    counts = np.bincount(places, minlength=len(EDGES)).astype(np.int64)
    share = np.floor(np.array(EDGES) * (n + 1) + _SLACK) / (n + 1)
    return Counted(counts, values.size * share, n if values.size else 0)


def drift_from_calibration(given: Counted, rate: float) -> Drift:
    """How far counted p-values are from those of images like the calibration images.

    `rate` is the false-alarm rate of interest: the largest edge up to it at which so few calibration images can show
    anything is looked at.

    Raises:
        ParameterInvalid: nothing is counted.

    Source: Kolmogorov-Smirnov, two samples, by its limit law; the beta-binomial law of conformal p-values follows from
            the rank of m + n exchangeable scores.
    """
    m, n = given.n, given.calibration_n
    if not m:
        raise ParameterInvalid("`given` of drift_from_calibration must count at least one p-value; got none.")
    gaps = (np.cumsum(given.counts) - given.expected) / m
    gap = float(gaps[np.argmax(np.abs(gaps))])
    edge = _edge(given.expected, rate)
    mean = min(max(given.expected[edge] / m, 1.0 / (n + 1)), n / (n + 1))
    seen = given.up_to(edge)
    return Drift(
        gap=gap,
        gap_p_value=_gap_p_value(gap, m, n),
        rate=EDGES[edge],
        seen=seen,
        expected=float(given.expected[edge]),
        seen_p_value=_beta_binomial_tail(seen, m, mean * (n + 1), (1.0 - mean) * (n + 1)),
    )


def drift_between(before: Counted, given: Counted, rate: float) -> Drift:
    """How far counted p-values are from those counted before, whatever share of strange images both hold.

    Raises:
        ParameterInvalid: nothing is counted on one of the sides.

    Source: Kolmogorov-Smirnov, two samples, by its limit law; Fisher's exact test, one-sided.
    """
    m, n = given.n, before.n
    if not m or not n:
        raise ParameterInvalid("`given` and `before` of drift_between must count at least one p-value each; got none.")
    gaps = np.cumsum(given.counts) / m - np.cumsum(before.counts) / n
    gap = float(gaps[np.argmax(np.abs(gaps))])
    edge = _edge(given.expected + before.expected, rate)
    seen, earlier = given.up_to(edge), before.up_to(edge)
    return Drift(
        gap=gap,
        gap_p_value=_gap_p_value(gap, m, n),
        rate=EDGES[edge],
        seen=seen,
        expected=m * earlier / n,
        seen_p_value=_hypergeometric_tail(seen, m, n, seen + earlier),
    )


def _edge(expected: NDArray[np.float64], rate: float) -> int:
    """Number of the largest edge up to the rate, or of the smallest one where normal images can be at all."""
    wanted = int(np.searchsorted(EDGES, rate + _SLACK, side="right")) - 1
    possible = int(np.argmax(expected > 0.0))
    return max(wanted, possible, 0)


def _gap_p_value(gap: float, m: int, n: int) -> float:
    return float(kolmogorov(np.sqrt(m * n / (m + n)) * abs(gap)))


def _beta_binomial_tail(seen: int, m: int, a: float, b: float) -> float:
    """P(X >= seen) of the beta-binomial law."""
    if seen <= 0:
        return 1.0
    if m - seen > _TERMS_MAX:
        return float(1.0 - betainc(a, b, seen / m))
    k = np.arange(seen, m + 1)
    return _summed(_log_choose(m, k) + betaln(k + a, m - k + b) - betaln(a, b))


def _hypergeometric_tail(seen: int, m: int, n: int, both: int) -> float:
    """P(X >= seen) where `both` of m + n are marked, and X is how many of them fall among the m."""
    k = np.arange(seen, min(both, m) + 1)
    return _summed(_log_choose(m, k) + _log_choose(n, both - k) - _log_choose(m + n, np.array(both)))


def _log_choose(total: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    chosen: NDArray[np.float64] = gammaln(total + 1.0) - gammaln(k + 1.0) - gammaln(total - k + 1.0)
    return chosen


def _summed(logarithms: NDArray[np.float64]) -> float:
    return float(min(1.0, np.exp(logarithms).sum()))


def from_lists(counts: Sequence[int], expected: Sequence[float], calibration_n: int) -> Counted:
    """What was counted, from plain numbers.

    Raises:
        ParameterInvalid: there are not as many numbers as edges.
    """
    if len(counts) != len(EDGES) or len(expected) != len(EDGES):
        raise ParameterInvalid(f"`counts` must have {len(EDGES)} numbers; got {len(counts)}.")
    return Counted(np.array(counts, np.int64), np.array(expected, np.float64), calibration_n)
