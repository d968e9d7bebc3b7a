"""judging.py: the arithmetic by hand, the equivalence of verdict and p-value, and the guarantee itself."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from models.errors import ParameterInvalid
from models.judging import (
    VERDICT_MIN,
    anomalous,
    benjamini_hochberg,
    false_alarm_spread,
    images_needed,
    make_calibration,
    p_values,
)

# Few distinct values, so that ties between scores and calibration are the rule.
coarse_scores = st.lists(st.integers(-3, 6).map(float), max_size=45)
rates = st.one_of(st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.29, 0.5, 0.57, 0.58, 0.999]), st.floats(1e-4, 0.9999))


def test_p_values_by_hand():
    assert p_values([0.0, 2.0, 2.5, 4.0], [1.0, 2.0, 3.0]).tolist() == [1.0, 0.75, 0.5, 0.25]


def test_without_calibration_every_p_value_is_one():
    assert p_values([5.0, -5.0], []).tolist() == [1.0, 1.0]


@given(scores=coarse_scores, calibration=coarse_scores)
def test_p_values_equal_counting(scores, calibration):
    counted = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    assert p_values(scores, calibration).tolist() == counted
    assert p_values(scores, np.sort(calibration), is_ascending=True).tolist() == counted


@given(scores=coarse_scores, calibration=coarse_scores, rate=rates)
@settings(max_examples=400)
def test_verdict_is_p_value_at_most_the_effective_rate(scores, calibration, rate):
    made = make_calibration(calibration, rate)
    verdicts = anomalous(scores, made)
    if len(calibration) < VERDICT_MIN:
        assert verdicts is None
        assert made.threshold is None
    else:
        assert verdicts.tolist() == (p_values(scores, calibration) <= made.false_alarm_rate).tolist()


def test_the_equivalence_needs_the_strict_comparison():
    # Negative control: with `>=` a tie with the border would be called anomalous although its p-value is
    # too large.
    calibration = [1.0] * 5 + [2.0] * 15
    made = make_calibration(calibration, 0.1)
    tie = np.array([2.0])
    assert (tie >= made.threshold).tolist() != (p_values(tie, calibration) <= made.false_alarm_rate).tolist()
    assert anomalous(tie, made).tolist() == [False]


@given(scores=coarse_scores.filter(bool), calibration=coarse_scores.filter(lambda c: len(c) >= 10), rate=rates)
def test_a_higher_score_is_never_less_anomalous(scores, calibration, rate):
    ascending = np.sort(scores)
    assert (np.diff(p_values(ascending, calibration)) <= 0).all()
    assert (np.diff(anomalous(ascending, make_calibration(calibration, rate)).astype(int)) >= 0).all()


@pytest.mark.parametrize("percent", range(1, 100))
def test_decimal_rates_are_not_lost_to_binary_rounding(percent):
    # 0.29 * 100 is 28.999999999999996: floor would give 28.
    made = make_calibration(np.arange(99.0), percent / 100)
    assert made.false_alarm_rate == pytest.approx(percent / 100, abs=1e-15)
    assert made.supported


def test_rounding_control_plain_floor_is_wrong_somewhere():
    assert any(int(percent / 100 * 100) != percent for percent in range(1, 100))


@given(n=st.integers(0, 3000), numerator=st.integers(1, 999))
@settings(max_examples=300)
def test_effective_rate_is_the_exact_floor(n, numerator):
    rate = Fraction(numerator, 1000)
    made = make_calibration(np.arange(float(n)), numerator / 1000)
    exact = int(rate * (n + 1))
    assert made.supported == (exact >= 1)
    assert made.false_alarm_rate == max(min(exact, n), 1) / (n + 1)


def test_no_calibration_at_all():
    made = make_calibration([], 0.01)
    assert (made.n, made.supported, made.threshold, made.spread) == (0, False, None, (0.0, 1.0))
    assert made.false_alarm_rate == 1.0
    assert anomalous([1.0], made) is None


def test_one_image():
    made = make_calibration([3.0], 0.01)
    assert (made.n, made.supported, made.false_alarm_rate, made.threshold) == (1, False, 0.5, None)


def test_nine_images_give_no_verdict_and_ten_do():
    nine, ten = make_calibration(np.arange(9.0), 0.2), make_calibration(np.arange(10.0), 0.2)
    assert anomalous([100.0], nine) is None
    assert nine.false_alarm_rate == 0.2
    assert anomalous([100.0, 8.0], ten).tolist() == [True, False]
    assert (ten.threshold, ten.false_alarm_rate) == (8.0, 2 / 11)


def test_ten_images_at_one_percent_use_the_smallest_rate_there_is():
    made = make_calibration(np.arange(10.0), 0.01)
    assert (made.supported, made.false_alarm_rate, made.requested, made.threshold) == (
        False,
        1 / 11,
        0.01,
        9.0,
    )
    assert anomalous([9.0, 9.5], made).tolist() == [False, True]


def test_the_border_of_support_is_exactly_one_over_rate_minus_one():
    assert not make_calibration(np.arange(98.0), 0.01).supported
    assert make_calibration(np.arange(99.0), 0.01).supported
    assert images_needed(0.01) == 99
    assert images_needed(0.5) == VERDICT_MIN


def test_rates_close_to_one_stay_on_the_calibration_scores():
    made = make_calibration(np.arange(10.0), 1 - 1e-12)
    assert (made.threshold, made.false_alarm_rate) == (0.0, 10 / 11)


def test_float32_scores_meet_float32_calibration_exactly():
    calibration = np.linspace(0, 1, 20, dtype=np.float32) * np.float32(0.1)
    made = make_calibration(calibration, 0.1)
    assert anomalous(calibration, made).sum() == 1  # the largest alone is above the second largest
    assert p_values(calibration[-1:], calibration).tolist() == [2 / 21]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_rates_outside_are_refused(rate):
    with pytest.raises(ParameterInvalid, match="must be strictly between 0 and 1"):
        make_calibration([1.0], rate)
    with pytest.raises(ParameterInvalid):
        benjamini_hochberg([0.1], rate)


def test_nan_and_matrices_are_refused():
    with pytest.raises(ParameterInvalid, match="NaN"):
        p_values([float("nan")], [1.0])
    with pytest.raises(ParameterInvalid, match="NaN"):
        p_values([1.0], [1.0, float("nan")], is_ascending=True)
    with pytest.raises(ParameterInvalid, match="dimensions"):
        make_calibration([[1.0]], 0.1)


def test_exchangeable_scores_alarm_at_the_promised_rate():
    # Mean over 4,000 calibration sets of 30, one query each: the promise is 3/31, its standard error 0.0047.
    generator = np.random.default_rng(7)
    draws = generator.normal(size=(4000, 31))
    alarms = [anomalous(row[:1], make_calibration(row[1:], 0.1))[0] for row in draws]
    assert abs(np.mean(alarms) - 3 / 31) < 3 * 0.0047
    # Negative control: queries that are not exchangeable with the calibration set break it.
    shifted = [anomalous(row[:1] + 1, make_calibration(row[1:], 0.1))[0] for row in draws[:1000]]
    assert np.mean(shifted) > 0.2


def test_spread_is_where_the_true_rate_falls():
    # Uniform scores: the true rate of a threshold t is 1 - t.
    generator = np.random.default_rng(11)
    made = [make_calibration(generator.uniform(size=50), 0.1) for _ in range(3000)]
    low, high = made[0].spread
    inside = np.mean([low <= 1 - m.threshold <= high for m in made])
    assert abs(inside - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 3000)
    wider_low, wider_high = false_alarm_spread(50, 5, 0.99)
    assert wider_low < low < 0.1 < high < wider_high


def test_spread_equals_the_beta_distribution():
    expected = beta.ppf([0.025, 0.975], 5, 46)
    assert make_calibration(np.arange(50.0), 0.1).spread == pytest.approx(tuple(expected), rel=1e-9)


def test_spread_narrows_with_more_images():
    widths = [np.subtract(*make_calibration(np.arange(float(n)), 0.1).spread[::-1]) for n in (10, 100, 1000)]
    assert widths[0] > widths[1] > widths[2]


def test_benjamini_hochberg_by_hand():
    # 0.01 <= 1*0.05/5 holds; 0.02 <= 0.02, 0.03 <= 0.03 hold; 0.5 and 0.9 do not. The step-up rule flags
    # three.
    assert benjamini_hochberg([0.5, 0.01, 0.03, 0.9, 0.02], 0.05).tolist() == [False, True, True, False, True]
    # A later pass rescues an earlier failure: 0.04 > 0.025 alone, yet 0.045 <= 0.05 pulls both in.
    assert benjamini_hochberg([0.04, 0.045], 0.05).tolist() == [True, True]
    assert benjamini_hochberg([], 0.05).tolist() == []


@given(
    p=st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.05, 0.2, 0.5, 1.0]), max_size=12),
    rate=st.sampled_from([0.05, 0.2]),
)
def test_benjamini_hochberg_equals_its_definition(p, rate):
    passing = [v for v in p if v * len(p) <= sum(other <= v for other in p) * rate + 1e-9]
    border = max(passing, default=-1.0)
    assert benjamini_hochberg(p, rate).tolist() == [v <= border for v in p]


def test_benjamini_hochberg_controls_the_share_of_false_flags():
    generator = np.random.default_rng(3)
    shares, plain = [], []
    for _ in range(400):
        scores = np.concatenate([generator.normal(size=40), generator.normal(4, 1, size=10)])
        p = p_values(scores, generator.normal(size=400))
        for flagged, kept in ((benjamini_hochberg(p, 0.1), shares), (p <= 0.1, plain)):
            kept.append(flagged[:40].sum() / max(flagged.sum(), 1))
    assert np.mean(shares) < 0.1
    assert np.mean(plain) > 0.2  # negative control: p <= 0.1 for each flags far too many normal images


def test_values_outside_zero_to_one_are_no_p_values():
    with pytest.raises(ParameterInvalid, match="between 0 and 1"):
        benjamini_hochberg([1.2], 0.1)
