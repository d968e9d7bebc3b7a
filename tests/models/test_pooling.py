"""Sets by the scores of their images: pooled, calibrated on disjoint sets, shared out."""

import numpy as np
import pytest

from models.judging import p_values
from models.pooling import ScorePooling, calibration_of_sets, pooled, shares

BOTH = list(ScorePooling)


def test_two_sets_on_paper() -> None:
    sets = np.array([[1, 5, 3], [2, 2, 2]], np.float32)
    assert pooled(sets, ScorePooling.MEAN).tolist() == [3.0, 2.0]
    assert pooled(sets, ScorePooling.MAX).tolist() == [5.0, 2.0]


def test_the_order_of_a_set_changes_no_bit() -> None:
    scores = np.random.default_rng(0).lognormal(0, 3, (1, 37)).astype(np.float32)
    turned = np.random.default_rng(1).permutation(scores[0])[None]
    for pooling in BOTH:
        assert pooled(scores, pooling).tobytes() == pooled(turned, pooling).tobytes()


def test_no_image_calibrates_two_sets() -> None:
    scores = np.arange(23, dtype=np.float32)
    found = calibration_of_sets(2.0**scores, 5, ScorePooling.MEAN, seed=3) * 5
    assert found.shape == (4,)
    used = sum(int(one) for one in found)
    assert used.bit_count() == 20, "each image is a bit: none is in two sets"
    assert calibration_of_sets(scores, 30, ScorePooling.MEAN, seed=3).size == 0
    assert np.array_equal(found, calibration_of_sets(2.0**scores, 5, ScorePooling.MEAN, seed=3) * 5)


@pytest.mark.parametrize("pooling", BOTH)
def test_normal_sets_alarm_as_often_as_was_asked(pooling: ScorePooling) -> None:
    random, alarms, wrong = np.random.default_rng(4), [], []
    for seed in range(400):
        held_out = random.lognormal(size=250).astype(np.float32)
        normal = pooled(random.lognormal(size=(1, 5)).astype(np.float32), pooling)
        alarms.append(p_values(normal, calibration_of_sets(held_out, 5, pooling, seed=seed))[0] <= 0.1)
        wrong.append(p_values(normal, held_out)[0] <= 0.1)
    assert np.mean(alarms) <= 0.1 + 0.04
    # Negative control: against single images a set alarms far too often by its largest, and too seldom by its mean.
    assert np.mean(wrong) > 0.3 or np.mean(wrong) < 0.5 * np.mean(alarms)


def test_shares_say_who_brought_the_score() -> None:
    calibration = np.array([1, 2, 3], np.float32)
    scores = np.array([1, 5, 3], np.float32)
    assert shares(scores, calibration, ScorePooling.MEAN).tolist() == [0.0, 0.75, 0.25]
    assert shares(scores, calibration, ScorePooling.MAX).tolist() == [0.0, 1.0, 0.0]
    assert shares(np.array([0, 1], np.float32), calibration, ScorePooling.MEAN).tolist() == [0.5, 0.5]
    assert shares(scores, calibration[:0], ScorePooling.MEAN).sum() == pytest.approx(1.0)
