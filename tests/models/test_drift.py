"""drift.py: counts by hand, the laws against scipy's, and the promise: alarms at the stated rate, and when due."""

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.stats import betabinom, hypergeom, ks_2samp

from models.drift import (
    EDGES,
    counted,
    drift_between,
    drift_from_calibration,
    from_lists,
    nothing_counted,
)
from models.errors import ParameterInvalid
from models.judging import p_values


def nearest_mean(queries: np.ndarray, bank: np.ndarray, *, itself: bool = False) -> np.ndarray:
    """Mean distance to the two nearest, an image itself left out."""
    distances, _ = KDTree(bank).query(queries, k=3 if itself else 2)
    return distances[:, -2:].mean(axis=1)


def judged(seed: int, n: int, m: int, shift: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """P-values of m new points by n normal ones, as the live scorer gives them."""
    random = np.random.default_rng(seed)
    bank, queries = random.normal(size=(n, 6)), random.normal(size=(m, 6)) * spread
    queries[:, 0] += shift
    return p_values(nearest_mean(queries, bank), nearest_mean(bank, bank, itself=True))


def test_counts_by_hand():
    one = counted([0.01, 0.010001, 0.05, 1.0], 99)
    assert [one.up_to(EDGES.index(edge)) for edge in (0.005, 0.01, 0.02, 0.05, 0.95, 1.0)] == [0, 1, 2, 3, 3, 4]
    # Of 99 calibration images p is one of 0.01, 0.02 ... 1: none can be up to 0.005, half of them are up to 0.5.
    assert [one.expected[EDGES.index(edge)] for edge in (0.005, 0.01, 0.5, 1.0)] == pytest.approx([0, 0.04, 2, 4])
    both = one + counted([0.5], 9)
    assert (both.n, both.calibration_n) == (5, 9)
    assert (nothing_counted() + one).calibration_n == 99


def test_sums_of_counts_are_counts_of_sums():
    random = np.random.default_rng(0)
    values = (1 + random.integers(0, 100, 60)) / 101
    parts = sum((counted(values[start : start + 7], 100) for start in range(0, 60, 7)), nothing_counted())
    whole = counted(values, 100)
    assert (parts.counts == whole.counts).all() and parts.expected == pytest.approx(whole.expected)


def test_what_cannot_be_counted_is_refused():
    for values, n in (([0.0], 9), ([1.1], 9), ([0.5], 0)):
        with pytest.raises(ParameterInvalid):
            counted(values, n)
    with pytest.raises(ParameterInvalid):
        drift_from_calibration(nothing_counted(), 0.01)
    with pytest.raises(ParameterInvalid):
        drift_between(nothing_counted(), counted([0.5], 9), 0.01)
    with pytest.raises(ParameterInvalid):
        from_lists([1], [1.0], 1)


@pytest.mark.parametrize(("n", "m", "shift"), [(40, 60, 0.0), (200, 90, 0.5), (99, 400, 0.2)])
def test_the_laws_are_scipys(n: int, m: int, shift: float):
    given = counted(judged(1, n, m, shift), n)
    found = drift_from_calibration(given, 0.05)
    edge = EDGES.index(found.rate)
    length = round(found.expected / m * (n + 1))
    assert found.seen_p_value == pytest.approx(betabinom.sf(found.seen - 1, m, length, n + 1 - length))
    earlier = counted(judged(2, n, 2 * m), n)
    between = drift_between(earlier, given, 0.05)
    law = hypergeom(3 * m, given.up_to(edge) + earlier.up_to(edge), m)
    assert between.seen_p_value == pytest.approx(law.sf(between.seen - 1), rel=1e-6)


def test_the_gap_is_that_of_two_samples_seen_at_the_edges():
    random = np.random.default_rng(3)
    normal, new = random.normal(size=199), random.normal(size=300) + 0.3
    found = drift_from_calibration(counted(p_values(new, normal), 199), 0.01)
    finest = ks_2samp(new, normal, method="asymp")
    assert 0.9 * finest.statistic < abs(found.gap) <= finest.statistic + 1 / 200
    assert found.gap > 0 and found.gap_p_value >= 0.5 * finest.pvalue


@pytest.mark.parametrize(("n", "m"), [(30, 40), (100, 300), (60, 2000)])
def test_images_like_the_normal_ones_alarm_no_more_often_than_stated(n: int, m: int):
    level, seeds = 0.05, 200
    alarms = sum(drift_from_calibration(counted(judged(seed, n, m), n), 0.05).p_value <= level for seed in range(seeds))
    # Three standard deviations of chance above the level; a plain test against the uniform law fails this by far.
    assert alarms <= seeds * level + 3 * np.sqrt(seeds * level * (1 - level))


def test_a_plain_test_of_uniformity_would_alarm_all_the_time():
    """Which is why the calibration images count as a sample too."""
    plain = 0
    for seed in range(50):
        given = counted(judged(seed, 60, 2000), 60)
        plain += drift_from_calibration(from_lists(given.counts, given.expected, 10**9), 0.05).p_value <= 0.05
    assert plain > 25


@pytest.mark.parametrize(("shift", "spread", "is_stranger"), [(2.5, 1.0, True), (0.0, 1.4, True), (0.0, 0.6, False)])
def test_other_images_alarm(shift: float, spread: float, is_stranger: bool):
    found = [drift_from_calibration(counted(judged(seed, 100, 200, shift, spread), 100), 0.01) for seed in range(40)]
    assert sum(one.p_value <= 0.01 for one in found) >= 38
    assert all((one.gap > 0) == is_stranger for one in found)


def test_a_steady_share_of_defects_is_no_change():
    def line(seed: int, defects: int) -> np.ndarray:
        random = np.random.default_rng(seed + 1000)
        bank = np.random.default_rng(7).normal(size=(100, 6))
        queries = random.normal(size=(300, 6))
        queries[:defects] += 4.0
        return p_values(nearest_mean(queries, bank), nearest_mean(bank, bank, itself=True))

    steady = [drift_between(counted(line(s, 30), 100), counted(line(s + 500, 30), 100), 0.01) for s in range(60)]
    assert sum(one.p_value <= 0.05 for one in steady) <= 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)
    assert all(drift_from_calibration(counted(line(s, 30), 100), 0.01).p_value <= 0.001 for s in range(5))
    more = [drift_between(counted(line(s, 30), 100), counted(line(s + 500, 70), 100), 0.01) for s in range(20)]
    assert sum(one.p_value <= 0.01 for one in more) >= 18


def test_millions_of_answers_are_no_matter():
    big = from_lists(
        (np.ones(len(EDGES), np.int64) * 300_000).tolist(), np.linspace(1e4, 8.4e6, len(EDGES)).tolist(), 500
    )
    found = drift_from_calibration(big, 0.01)
    assert 0.0 <= found.p_value <= 1.0
    # The limit agrees with the sum where both are used.
    m, n, seen = 250_000, 500, 3_000
    given = counted(np.full(seen, 1 / 501), n) + counted(np.full(m - seen, 1.0), n)
    limit = drift_from_calibration(given, 0.01).seen_p_value
    assert limit == pytest.approx(betabinom.sf(seen - 1, m, 5, 496), abs=2e-3)
