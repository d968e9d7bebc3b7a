"""What the protocols put into banks and sets, and that figures are judged as the service judges."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.embedding import Pool
from benchmarks.errors import BenchmarkRefused, TooFewSets
from benchmarks.protocols import live_bank, measure_contaminated, measure_images, measure_sets, plant
from models.judging import make_calibration
from models.methods.dn2 import DN2Params

RATES = (0.05, 0.1)
L2 = DN2Params(metric="l2")


def pool(*centres: tuple[float, int], width: int = 4, spread: float = 1.0) -> Pool:
    """Gaussian blobs, one after another: (place of the centre, number of images)."""
    random = np.random.default_rng(1)
    parts = [random.normal(0, spread, (count, width)) + place for place, count in centres]
    vectors = np.concatenate(parts).astype(np.float32)
    names = tuple(hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(vectors)))
    return Pool(names, vectors, {Path(name): row for row, name in enumerate(names)}, {})


def rows(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.int64)


@given(st.integers(10, 400), st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.25, 0.5]), st.integers(1, 9), st.integers(0, 99))
def test_the_stated_share_is_planted_from_all_other_kinds(normal: int, share: float, kinds: int, seed: int) -> None:
    others = [rows(1000 + 500 * kind, 1500 + 500 * kind) for kind in range(kinds)]
    planted = plant(rows(0, normal), others, share, np.random.default_rng(seed))
    assert planted.size == round(normal * share / (1 - share))
    assert abs(planted.size / (normal + planted.size) - share) <= 0.5 / normal
    assert np.unique(planted).size == planted.size
    counts = [np.isin(planted, one).sum() for one in others]
    assert sum(counts) == planted.size
    assert max(counts) - min(counts) <= 1


def test_planting_is_refused_when_it_cannot_be_done() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(BenchmarkRefused, match="needs 10 strangers"):
        plant(rows(0, 90), [rows(100, 109)], 0.1, random)
    with pytest.raises(BenchmarkRefused, match=r"from 0 to 0\.5"):
        plant(rows(0, 90), [rows(100, 500)], 0.6, random)


def test_far_strangers_are_told_apart_and_alike_ones_are_not() -> None:
    made = pool((0, 300), (20, 100), (0, 100))
    far = measure_images(made, rows(0, 200), rows(200, 300), rows(300, 400), L2, RATES)
    alike = measure_images(made, rows(0, 200), rows(200, 300), rows(400, 500), L2, RATES)
    assert far["roc_auc"] == 1.0
    assert far["fpr_at_95_tpr"] == 0.0
    assert [one["found"] for one in far["rates"]] == [1.0, 1.0]
    assert 0.35 < alike["roc_auc"] < 0.65
    assert (far["bank"], far["normal"], far["strangers"]) == (200, 100, 100)


def test_rates_are_judged_by_the_services_calibration() -> None:
    made = pool((0, 300), (20, 100))
    found = measure_images(made, rows(0, 200), rows(200, 300), rows(300, 400), L2, RATES)
    scorer = live_bank(made, rows(0, 200), L2)
    for one in found["rates"]:
        calibration = make_calibration(scorer.calibration().scores, one["requested"])
        scores = scorer.score(made.vectors[200:300]).score
        assert one["observed"] == float((scores > calibration.threshold).mean())
        assert (one["promised"], one["n"]) == (calibration.false_alarm_rate, 200)


def test_a_tiny_bank_gives_no_verdict() -> None:
    made = pool((0, 20), (20, 5))
    found = measure_images(made, rows(0, 5), rows(5, 20), rows(20, 25), L2, RATES)
    assert [one["observed"] for one in found["rates"]] == [None, None]


def test_planted_strangers_cost_and_scattered_ones_are_thrown_out() -> None:
    made = pool((0, 300), (40, 30), (40, 100))
    planted = rows(300, 320)
    found = measure_contaminated(made, rows(0, 180), planted, rows(200, 300), rows(330, 430), L2, RATES, dropped=0.15)
    assert found["planted"] == 20
    assert found["share"] == pytest.approx(0.1)
    assert found["dropped"] == 30
    assert found["contaminated"]["roc_auc"] < 0.95 < 0.99 < found["clean"]["roc_auc"]
    scattered = pool(*[(0, 300)], *[(40 + 60 * step, 1) for step in range(20)], (40, 100))
    found = measure_contaminated(
        scattered, rows(0, 180), planted, rows(200, 300), rows(320, 420), L2, RATES, dropped=0.15
    )
    assert found["planted_dropped"] == 20
    assert found["cleaned"]["roc_auc"] > 0.99


@pytest.mark.parametrize("pooling", ["mean", "max", "concat", "excess"])
def test_sets_with_strangers_are_told_apart(pooling: str) -> None:
    made = pool((0, 500), (20, 50))
    asked = {"size": 4, "fraction": 0.5, "pooling": pooling}
    found = measure_sets(
        made, rows(0, 300), rows(300, 500), rows(500, 550), L2, RATES, **asked, random=np.random.default_rng(0)
    )
    assert found["roc_auc"] == 1.0
    assert (found["normal"], found["strangers"], found["strangers_in_set"]) == (50, 50, 2)
    alike = measure_sets(
        made, rows(0, 300), rows(300, 400), rows(400, 500), L2, RATES, **asked, random=np.random.default_rng(0)
    )
    assert alike["roc_auc"] < 0.8


def test_sets_that_mean_nothing_are_refused() -> None:
    made = pool((0, 100), (20, 10))
    random = np.random.default_rng(0)
    with pytest.raises(TooFewSets, match="need 25 normal"):
        measure_sets(
            made, rows(0, 80), rows(80, 100), rows(100, 110), L2, RATES,
            size=5, fraction=0.4, pooling="mean", random=random,
        )  # fmt: skip
    for fraction in (0.0, 1.2):
        with pytest.raises(BenchmarkRefused, match="1 to 3 strangers"):
            measure_sets(
                made, rows(0, 80), rows(80, 100), rows(100, 110), L2, RATES,
                size=3, fraction=fraction, pooling="mean", random=random,
            )  # fmt: skip
