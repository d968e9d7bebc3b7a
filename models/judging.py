"""From raw scores to p-values and verdicts at a stated false-alarm rate.

A raw distance means nothing to a stranger. What this module says instead is a conformal p-value: how large
a share of normal images is at least as strange as this one, the image itself counted among them.

The guarantee. Let the n calibration images and the query be exchangeable (no order of the n + 1 is likelier
than another, which holds when all are drawn alike and independently), and let the score treat them alike.
Then for every n and every rate a, P(p <= a) <= a over the draw of all n + 1 images; no assumption is made
about the distribution or about the quality of the score. Ties only make it smaller. Two ways of getting
calibration scores satisfy it here:

* held out: the calibration images took no part in building the scorer. Then equality holds without ties.
* leave-one-out over the bank, for a score that can only fall when the bank grows (mean distance to the k
  nearest). Write R_i for the score of image i against the n others *including the query*, and S_i for its
  score without the query. R_1 ... R_n, R_query are exchangeable, and S_i >= R_i. So at least as many S_i as
  R_i reach the query's score, the p-value is at least the exchangeable one, and the promise holds with room
  to spare.

What is promised on average over calibration sets is not promised for the set at hand: for held-out
continuous scores the true false-alarm rate of one fixed threshold follows a beta law, and
`Calibration.spread` states its middle 95 %.

Bursts and near-duplicates break exchangeability; leave whole groups out of their own calibration, as
`models.leave_one_out` does.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from models.errors import ParameterInvalid

VERDICT_MIN = 10
"""Calibration scores needed before a verdict is given; below it the spread covers nearly everything."""

# Rates are decimal fractions typed by people: 0.29 * 100 is 28.999999999999996 in binary and must count as
# 29. The slack is far above the rounding error of any n that fits in memory, and far below one whole image.
_ROUNDING_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Calibration:
    """The border at one false-alarm rate, with what it is worth."""

    n: int
    """Calibration scores behind it."""
    requested: float
    """The false-alarm rate asked for, in (0, 1)."""
    supported: bool
    """Whether n is large enough for the requested rate, that is n >= 1/requested - 1."""
    false_alarm_rate: float
    """The rate the border really has: floor(requested * (n + 1)) / (n + 1), and 1 / (n + 1) when
    unsupported."""
    threshold: float | None
    """A score strictly above it is anomalous; None while n is below `VERDICT_MIN`, where no verdict is
    given."""
    spread: tuple[float, float]
    """Middle 95 % of the true rate of such a border over calibration sets (beta law; held-out, continuous
    scores)."""


def p_values(scores: ArrayLike, calibration: ArrayLike, *, is_ascending: bool = False) -> NDArray[np.float64]:
    """Share of the calibration images and the query itself that are at least as strange as the query.

    Shapes: scores (Q,), calibration (n,) -> (Q,) float64 in [1 / (n + 1), 1]; n = 0 gives 1.
    Units:  scores in any unit, larger = stranger; both in the same one.
    Ties:   count as "at least as strange".
    Order:  of the calibration any, unless `is_ascending` promises that it is sorted: then it is not sorted again.

    Raises:
        ParameterInvalid: a score is NaN, or an array has more than one dimension.

    Source:  conformal prediction, Vovk, Gammerman, Shafer 2005; the smoothed variant is not used, so that
             the same image always gets the same answer.

    >>> p_values([0.5, 3.0, 9.0], [1.0, 2.0, 3.0]).tolist()
    [1.0, 0.5, 0.25]
    """
    asked = _one_dimensional("scores", scores)
    reference = _one_dimensional("calibration", calibration, is_ascending=is_ascending)
    if not is_ascending:
        reference = np.sort(reference)
    n = reference.shape[0]
    at_least_as_strange = n - np.searchsorted(reference, asked, side="left")
    shares: NDArray[np.float64] = (1.0 + at_least_as_strange) / (n + 1.0)
    return shares


def make_calibration(calibration_scores: ArrayLike, requested: float) -> Calibration:
    """The border at a requested false-alarm rate, or at the smallest rate the scores support.

    With m = floor(requested * (n + 1)) the border is the m-th largest calibration score, so that
    `score > threshold` is exactly `p <= m / (n + 1)`. When m is 0 the rate asked for is finer than n images
    can show; the border is then the largest calibration score, its rate 1 / (n + 1), and `supported` is
    False.

    Shapes: calibration_scores (n,).
    Units:  `threshold` in the unit of the scores; rates are probabilities.

    Raises:
        ParameterInvalid: the rate is not strictly between 0 and 1, or a score is NaN.

    >>> made = make_calibration(range(1, 100), 0.05)
    >>> made.threshold, made.false_alarm_rate, made.supported
    (95.0, 0.05, True)
    """
    _check_rate("false_alarm_rate", requested)
    scores = np.sort(_one_dimensional("calibration", calibration_scores))
    n = scores.shape[0]
    m = int(np.floor(requested * (n + 1) + _ROUNDING_SLACK))
    supported = m >= 1
    m = min(max(m, 1), max(n, 1))
    return Calibration(
        n=n,
        requested=float(requested),
        supported=supported,
        false_alarm_rate=m / (n + 1),
        threshold=float(scores[n - m]) if n >= VERDICT_MIN else None,
        spread=false_alarm_spread(n, m),
    )


def anomalous(scores: ArrayLike, calibration: Calibration) -> NDArray[np.bool_] | None:
    """Whether each score lies strictly above the border; None when there are too few images for a verdict.

    Equivalent, score by score, to `p_values(score) <= calibration.false_alarm_rate`.

    Shapes: scores (Q,) -> (Q,) bool.
    """
    asked = _one_dimensional("scores", scores)
    if calibration.threshold is None:
        return None
    verdicts: NDArray[np.bool_] = asked > calibration.threshold
    return verdicts


@lru_cache(maxsize=1024)  # asked of every answer, for the few calibrations there are
def false_alarm_spread(n: int, m: int, coverage: float = 0.95) -> tuple[float, float]:
    """Middle `coverage` of the true false-alarm rate when the border is the m-th largest of n held-out
    scores.

    That rate is the tail probability beyond an order statistic of n independent draws, hence Beta(m, n + 1
    - m). For leave-one-out scores the law is an approximation (their dependence is of order 1/n); ties only
    lower the rate.

    Units: probabilities; (0, 1) when n = 0, where nothing is known.

    Source: order statistics of uniform variables; for conformal prediction Vovk 2012, "Conditional validity".
    """
    if n == 0:
        return (0.0, 1.0)
    tail = (1.0 - coverage) / 2.0
    low, high = betaincinv(m, n + 1 - m, [tail, 1.0 - tail])
    return (float(low), float(high))


def benjamini_hochberg(p: ArrayLike, rate: float) -> NDArray[np.bool_]:
    """Which of a batch to flag so that at most `rate` of the flagged are expected to be normal.

    The step-up rule: with the p-values in ascending order, everything up to the last place i (from 1) with
    p_(i) <= i * rate / Q is flagged. Unlike a verdict it depends on the batch, so it is never mixed with one.
    Conformal p-values that share calibration images are positively dependent in the sense the rule needs.

    Shapes: p (Q,) -> (Q,) bool, in the order given.
    Ties:   equal p-values are flagged together.

    Raises:
        ParameterInvalid: the rate is not strictly between 0 and 1, or a p-value lies outside [0, 1].

    Source: Benjamini, Hochberg 1995; for conformal p-values Bates, Candes, Lei, Romano, Sesia 2023.
    """
    _check_rate("rate", rate)
    values = _one_dimensional("p", p)
    if values.size == 0:
        return np.zeros(0, dtype=np.bool_)
    if values.min() < 0.0 or values.max() > 1.0:
        raise ParameterInvalid("`p` of benjamini_hochberg must lie between 0 and 1; got a value outside.")
    ascending = np.sort(values)
    places = np.arange(1, values.size + 1)
    passing = np.flatnonzero(ascending * values.size <= places * rate + _ROUNDING_SLACK)
    if passing.size == 0:
        return np.zeros(values.size, dtype=np.bool_)
    flagged: NDArray[np.bool_] = values <= ascending[passing[-1]]
    return flagged


def images_needed(rate: float) -> int:
    """Smallest number of calibration images at which `rate` is supported and a verdict is given."""
    _check_rate("false_alarm_rate", rate)
    return max(VERDICT_MIN, int(np.ceil(1.0 / rate - 1.0 - _ROUNDING_SLACK)))


def _check_rate(name: str, rate: float) -> None:
    if not 0.0 < rate < 1.0:  # also refuses NaN
        raise ParameterInvalid(f"`{name}` must be strictly between 0 and 1; got {rate}.")


def _one_dimensional(name: str, values: ArrayLike, *, is_ascending: bool = False) -> NDArray[np.float64]:
    # float64 holds every float32 exactly, so comparing here never creates or breaks a tie.
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ParameterInvalid(f"`{name}` must be one row of numbers; got {array.ndim} dimensions.")
    if np.count_nonzero(np.isnan(array[-1:] if is_ascending else array)):  # NaN sorts last
        raise ParameterInvalid(f"`{name}` must hold numbers only; got NaN.")
    return array
