"""Sets by the scores of their images: pooled, calibrated on disjoint sets, shared out."""

import numpy as np
import pytest

from models.judging import p_values
from models.pooling import ScorePooling, calibration_of_sets, pooled, shares, usual_score

WAYS = list(ScorePooling)


def test_two_sets_on_paper() -> None:
    sets = np.array([[1, 5, 3], [2, 2, 2]], np.float32)
    assert pooled(sets, ScorePooling.MEAN, 1.0).tolist() == [3.0, 2.0]
    assert pooled(sets, ScorePooling.MAX, 1.0).tolist() == [5.0, 2.0]
    assert pooled(sets, ScorePooling.EXCESS, 1.0) == pytest.approx([np.sqrt((0 + 16 + 4) / 3), 1.0])
    assert pooled(sets, ScorePooling.EXCESS, 5.0).tolist() == [0.0, 0.0]
    assert pooled(sets - 7, ScorePooling.EXCESS, -6.0) == pytest.approx(pooled(sets, ScorePooling.EXCESS, 1.0))


def test_excess_tells_few_strange_images_and_many_that_are_a_little_strange() -> None:
    random = np.random.default_rng(2)
    usual = random.normal(size=(2000, 10)).astype(np.float32)
    kinds = {"one": np.eye(10)[0] * 3, "all": np.full(10, 0.8)}
    found = {
        (kind, way): float(
            (pooled(usual + added.astype(np.float32), way, 0.0)[:, None] > pooled(usual, way, 0.0)).mean()
        )
        for kind, added in kinds.items()
        for way in WAYS
    }
    assert found["one", ScorePooling.EXCESS] > found["one", ScorePooling.MEAN] + 0.05
    assert found["all", ScorePooling.EXCESS] > found["all", ScorePooling.MAX] + 0.05


def test_the_order_of_a_set_changes_no_bit() -> None:
    scores = np.random.default_rng(0).lognormal(0, 3, (1, 37)).astype(np.float32)
    turned = np.random.default_rng(1).permutation(scores[0])[None]
    for pooling in WAYS:
        assert pooled(scores, pooling, 1.0).tobytes() == pooled(turned, pooling, 1.0).tobytes()


def test_no_image_calibrates_two_sets() -> None:
    scores = np.arange(23, dtype=np.float32)
    found = calibration_of_sets(2.0**scores, 5, ScorePooling.MEAN, seed=3) * 5
    assert found.shape == (4,)
    used = sum(int(one) for one in found)
    assert used.bit_count() == 20, "each image is a bit: none is in two sets"
    assert calibration_of_sets(scores, 30, ScorePooling.MEAN, seed=3).size == 0
    assert np.array_equal(found, calibration_of_sets(2.0**scores, 5, ScorePooling.MEAN, seed=3) * 5)


@pytest.mark.parametrize("pooling", WAYS)
def test_normal_sets_alarm_as_often_as_was_asked(pooling: ScorePooling) -> None:
    random, alarms, wrong = np.random.default_rng(4), [], []
    for seed in range(400):
        held_out = random.lognormal(size=300).astype(np.float32)
        new = random.lognormal(size=(1, 10)).astype(np.float32)
        normal = pooled(new, pooling, usual_score(held_out, new))
        alarms.append(p_values(normal, calibration_of_sets(held_out, 10, pooling, seed=seed))[0] <= 0.1)
        wrong.append(p_values(normal, pooled(held_out[:, None], pooling, usual_score(held_out, new)))[0] <= 0.1)
    assert np.mean(alarms) <= 0.1 + 0.04
    # Negative control: against single images sets alarm too often by largest and excess, and too seldom by their mean.
    assert np.mean(wrong) > 0.16 or np.mean(wrong) < 0.04


def test_shares_say_who_brought_the_score() -> None:
    calibration = np.array([1, 2, 3], np.float32)
    scores = np.array([1, 5, 3], np.float32)
    usual = usual_score(calibration, scores)
    assert usual == 2.0
    assert shares(scores, ScorePooling.MEAN, usual).tolist() == [0.0, 0.75, 0.25]
    assert shares(scores, ScorePooling.EXCESS, usual) == pytest.approx([0.0, 0.9, 0.1])
    assert shares(scores, ScorePooling.MAX, usual).tolist() == [0.0, 1.0, 0.0]
    for pooling in (ScorePooling.MEAN, ScorePooling.EXCESS):
        assert shares(np.array([0, 1], np.float32), pooling, usual).tolist() == [0.5, 0.5]
        assert shares(scores, pooling, usual_score(calibration[:0], scores)).sum() == pytest.approx(1.0)
