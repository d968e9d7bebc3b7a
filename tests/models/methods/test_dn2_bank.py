"""dn2: cleaning a bank that may hold anomalies, and standing in for a large one by a small one."""

import numpy as np
import pytest

from index import Metric
from models.errors import BankTooSmall, ParameterInvalid
from models.methods.dn2 import (
    DN2Params,
    LiveDN2,
    clean,
    cleaned,
    cleaning_k,
    coreset_bank,
    fidelity,
    kmeans_bank,
    set_aside,
)
from models.methods.dn2.compression import roc_auc
from tests.models.methods.test_dn2 import gaussians, keys_of, live
from tests.oracles import dn2 as oracle

METRICS = [Metric.COSINE, Metric.L2]


def against(bank, metric, k=2):
    """A scorer of vectors against a bank."""
    scorer = live(bank, metric=metric)
    return lambda asked: scorer.score(asked, k=k).score


# --- cleaning
# --------------------------------------------------------------------------------------------------------


def test_clean_by_hand():
    ids, scores = np.array([5, 6, 7, 8]), np.array([0.1, 0.9, 0.5, 0.9], dtype=np.float32)
    assert clean(ids, scores, 0.0).tolist() == []
    assert clean(ids, scores, 0.25).tolist() == [8]  # a tie: the lower id stays
    assert clean(ids, scores, 0.5).tolist() == [8, 6]
    assert clean(np.arange(100), np.arange(100, dtype=np.float32), 0.29).size == 29  # 0.29 * 100 = 28.999...


def test_no_image_is_its_own_neighbour_in_unsupervised_mode():
    bank = gaussians(1, 40, 4)
    found = cleaned(live(bank, metric="l2"), 0.1, k=2)
    assert found.scores == pytest.approx(oracle.leave_one_out(bank, 2, "l2"), rel=1e-5)
    assert (found.scores > 0).all()
    # Negative control: were each image allowed to find itself, its first distance would be 0 and its score
    # too small.
    with_itself = live(bank, metric="l2").score(bank).score
    assert (with_itself < found.scores).all()
    assert with_itself == pytest.approx(oracle.scores(bank, bank, 2, "l2"), abs=1e-5)


def test_a_planted_minority_is_dropped_and_its_kind_is_found_afterwards():
    # Mean of 5 seeds, margin 0.1 in ROC-AUC; the minority is spread, so that it does not vouch for itself.
    gains = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        normal, strange = random.normal(size=(190, 8)), random.normal(size=(10, 8)) * 4
        bank = np.concatenate([normal, strange]).astype(np.float32)
        # New anomalies resemble those in the bank.
        asked = np.concatenate([random.normal(size=(60, 8)), strange + 0.1 * random.normal(size=(10, 8))])
        truth = np.arange(70) >= 60
        scorer = live(bank, metric="l2", k=1)
        found = cleaned(scorer, 0.05)
        assert np.mean(found.dropped >= 190) >= 0.8
        before = roc_auc(scorer.score(asked.astype(np.float32)).score.astype(float), truth)
        scorer.remove(found.dropped)
        gains.append(roc_auc(scorer.score(asked.astype(np.float32)).score.astype(float), truth) - before)
    assert np.mean(gains) > 0.1


def test_strangers_of_one_kind_do_not_vouch_for_each_other():
    # Mean of 5 seeds, margin 0.5 of the strangers; the control is the k of detection, which the strangers satisfy
    # among themselves.
    found: dict[int | None, list[float]] = {None: [], 2: []}
    for seed in range(5):
        random = np.random.default_rng(seed)
        normal = random.normal(size=(180, 8))
        strange = 4.0 + 0.1 * random.normal(size=(20, 8))
        scorer = live(np.concatenate([normal, strange]).astype(np.float32), metric="l2")
        for k, shares in found.items():
            shares.append(float(np.isin(np.arange(180, 200), cleaned(scorer, 0.15, k=k).dropped).mean()))
    assert np.mean(found[None]) >= np.mean(found[2]) + 0.5
    assert np.mean(found[None]) >= 0.9


def test_cleaning_averages_over_as_many_as_it_drops():
    assert [cleaning_k(images, 0.15) for images in (0, 3, 100, 101, 10_000)] == [2, 2, 15, 16, 512]


def test_cleaning_asks_before_it_drops():
    scorer = live(gaussians(2, 30, 3))
    found = cleaned(scorer, 0.5)
    assert found.dropped.size == 15
    assert len(scorer.bank) == 30
    assert found.promise.startswith("biased")


def test_leave_one_out_after_cleaning_alarms_too_often_and_images_set_aside_do_not():
    # The reason for the word `biased`: half dropped, 10 % promised, mean of 60 banks.
    rates = {"leave one out": [], "set aside": []}
    for seed in range(60):
        random = np.random.default_rng(seed)
        bank, new = random.normal(size=(2, 120, 3)).astype(np.float32)
        scorer = live(bank, metric="l2")
        scorer.remove(cleaned(scorer, 0.5).dropped)
        border = np.sort(scorer.calibration().scores)[-6]  # 6 / 61 of 60
        rates["leave one out"].append((scorer.score(new).score > border).mean())

        ids, keys = np.arange(120), keys_of(np.arange(120))
        aside, rest = set_aside(ids, keys, 0.25)
        scorer = live(bank[rest], metric="l2")
        scorer.remove(cleaned(scorer, 0.5).dropped)
        border = np.sort(scorer.score(bank[aside]).score)[-3]  # 3 / 31 of 30
        rates["set aside"].append((scorer.score(new).score > border).mean())
    assert np.mean(rates["leave one out"]) > 0.3
    error = np.std(rates["set aside"]) / np.sqrt(60)
    assert abs(np.mean(rates["set aside"]) - 3 / 31) < 3 * error


def test_set_aside_depends_on_keys_alone():
    keys = np.array([5, 1, 4, 2, 3], dtype=np.uint64)
    aside, rest = set_aside(np.array([10, 11, 12, 13, 14]), keys, 0.4)
    assert (aside.tolist(), rest.tolist()) == ([11, 13], [10, 12, 14])
    order = np.array([3, 0, 4, 1, 2])
    again, _ = set_aside(np.array([10, 11, 12, 13, 14])[order], keys[order], 0.4)
    assert again.tolist() == aside.tolist()


@pytest.mark.parametrize("fraction", [-0.1, 0.51, float("nan")])
def test_cleaning_more_than_half_is_refused(fraction):
    with pytest.raises(ParameterInvalid, match=r"`fraction` of cleaning must be from 0 to 0\.5"):
        cleaned(live(gaussians(3, 4, 2)), fraction)
    with pytest.raises(ParameterInvalid, match=r"`share` of images set aside"):
        set_aside(np.arange(3), keys_of(np.arange(3)), fraction)


def test_cleaning_refuses_scores_of_other_images():
    with pytest.raises(ParameterInvalid, match="one per id, 2; got 1"):
        clean(np.arange(2), np.zeros(1, dtype=np.float32), 0.1)


# --- compression
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_centres", [30, 31, 1000])
def test_as_many_centres_as_images_is_the_plain_bank(metric, n_centres):
    bank, asked = gaussians(4, 30, 5), gaussians(5, 20, 5)
    made = kmeans_bank(np.arange(30), bank, n_centres, metric=metric, seed=0)
    assert against(made.vectors, metric)(asked).tobytes() == against(bank, metric)(asked).tobytes()
    assert made.ids.tolist() == list(range(30))
    # Negative control: with fewer centres the scores differ.
    fewer = kmeans_bank(np.arange(30), bank, 20, metric=metric, seed=0)
    assert against(fewer.vectors, metric)(asked).tobytes() != against(bank, metric)(asked).tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_centres_of_separate_clusters_are_their_means(metric):
    random = np.random.default_rng(6)
    corners = np.array([[10, 0, 0], [0, 10, 0], [0, 0, 10]])
    bank = (np.repeat(corners, 20, axis=0) + 0.1 * random.normal(size=(60, 3))).astype(np.float32)
    ids = 100 + np.arange(60)
    made = kmeans_bank(ids, bank, 3, metric=metric, seed=1)
    points = bank / np.linalg.norm(bank, axis=1, keepdims=True) if metric is Metric.COSINE else bank
    expected = points.reshape(3, 20, 3).mean(axis=1)
    assert made.vectors[np.argsort(made.ids)] == pytest.approx(expected, abs=1e-4)
    assert made.sizes.tolist() == [20, 20, 20]
    assert sorted((made.ids - 100) // 20) == [0, 1, 2]
    to_own = [min(oracle.distance(row, centre, metric) for centre in made.vectors) for row in bank]
    assert made.radius == pytest.approx(max(to_own), rel=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_the_coreset_equals_greedy_choice_by_double_loop(metric):
    bank = gaussians(7, 40, 3)
    seen = []
    made = coreset_bank(np.arange(40), bank, 8, metric=metric, seed=3, progress=lambda *step: seen.append(step))
    chosen = [int(np.random.default_rng(3).integers(40))]
    while len(chosen) < 8:
        far = [min(oracle.distance(row, bank[c], metric) for c in chosen) for row in bank]
        chosen.append(int(np.argmax(far)))
    assert made.ids.tolist() == chosen
    assert made.vectors.tobytes() == bank[chosen].tobytes()
    assert made.sizes.sum() == 40
    assert seen == [(i, 8) for i in range(1, 9)]
    far = [min(oracle.distance(row, bank[c], metric) for c in chosen) for row in bank]
    assert made.radius == pytest.approx(max(far), rel=1e-4)


def test_the_coreset_covers_better_than_chance():
    bank = gaussians(8, 300, 6)
    greedy = coreset_bank(np.arange(300), bank, 30, metric=Metric.L2, seed=0).radius
    random = np.random.default_rng(0)
    by_chance = [
        max(oracle.mean_to_nearest(row, bank[random.permutation(300)[:30]], 1, "l2") for row in bank[:60])
        for _ in range(5)
    ]
    assert greedy < min(by_chance)


def test_duplicates_are_chosen_once_each():
    bank = np.zeros((6, 2), dtype=np.float32)
    bank[0] = 1
    made = coreset_bank(np.arange(6), bank, 6, metric=Metric.L2, seed=2)
    assert sorted(made.ids.tolist()) == list(range(6))
    assert coreset_bank(np.arange(6), bank, 99, metric=Metric.L2, seed=2).ids.size == 6


def test_the_seed_decides_and_nothing_else():
    bank = gaussians(9, 50, 4)
    before = np.random.get_state()[1].tobytes()
    for make in (coreset_bank, kmeans_bank):
        once, again, other = (make(np.arange(50), bank, 5, metric=Metric.L2, seed=s).vectors for s in (1, 1, 2))
        assert once.tobytes() == again.tobytes()
        assert once.tobytes() != other.tobytes()
    assert np.random.get_state()[1].tobytes() == before


def test_compression_refusals():
    for make in (coreset_bank, kmeans_bank):
        with pytest.raises(BankTooSmall, match="got 0"):
            make(np.arange(0), np.zeros((0, 3), dtype=np.float32), 2, metric=Metric.L2, seed=0)
        with pytest.raises(ParameterInvalid, match="must be 1 or more; got 0"):
            make(np.arange(2), gaussians(1, 2, 3), 0, metric=Metric.L2, seed=0)


# --- fidelity
# --------------------------------------------------------------------------------------------------------


def test_a_bank_is_perfectly_faithful_to_itself():
    bank, probes = gaussians(10, 60, 4), gaussians(11, 30, 4)
    probes[20:] += 3
    truth = np.arange(30) >= 20
    same = against(bank, Metric.L2)
    report = fidelity(same, same, probes, anomalous=truth)
    assert (report.n_probes, report.spearman, report.mean_ratio) == (30, 1.0, 1.0)
    assert report.auc_whole == report.auc_compressed > 0.9


def test_fidelity_falls_as_the_bank_shrinks():
    bank, probes = gaussians(12, 400, 4), gaussians(13, 80, 4)
    reports = [
        fidelity(
            against(bank, Metric.L2),
            against(kmeans_bank(np.arange(400), bank, n, metric=Metric.L2, seed=0).vectors, Metric.L2),
            probes,
        )
        for n in (300, 10)
    ]
    assert 1 > reports[0].spearman > reports[1].spearman
    assert reports[1].mean_ratio > reports[0].mean_ratio > 1  # fewer vectors, farther away
    assert reports[0].auc_whole is None


def test_fidelity_by_hand():
    probes = np.zeros((4, 1), dtype=np.float32)
    report = fidelity(
        lambda _: np.array([1.0, 2.0, 3.0, 0.0]),
        lambda _: np.array([2.0, 4.0, 1.5, 0.0]),
        probes,
        anomalous=np.array([False, False, True, False]),
    )
    assert report.mean_ratio == pytest.approx((2 + 2 + 0.5) / 3)
    # Ranks 2 3 4 1 and 3 4 2 1: 1 - 6 * (1 + 1 + 4) / (4 * 15)
    assert report.spearman == pytest.approx(0.4)
    assert (report.auc_whole, report.auc_compressed) == (1.0, pytest.approx(1 / 3))


def test_fidelity_refusals_and_constant_scores():
    constant = fidelity(lambda p: np.zeros(len(p)), lambda p: np.zeros(len(p)), np.zeros((3, 1), dtype=np.float32))
    assert np.isnan(constant.spearman)
    assert np.isnan(constant.mean_ratio)
    with pytest.raises(ParameterInvalid, match="at least 1 image"):
        fidelity(lambda p: p, lambda p: p, np.zeros((0, 1), dtype=np.float32))
    with pytest.raises(ParameterInvalid, match="one entry per probe, 2; got 1"):
        fidelity(lambda p: p, lambda p: p, np.zeros((2, 1), dtype=np.float32), anomalous=np.array([True]))


# --- taking up where another process left off
# --------------------------------------------------------------------------------------------------------


def restored(scorer, grouped):
    """The scorer as another process would build it from what was written down, over the same indexes."""
    arrays = {name: array.copy() for name, array in scorer.export_arrays().items()}
    return LiveDN2.restore(
        params=scorer.params, bank=scorer.bank, anomalous=scorer.anomalous, arrays=arrays, grouped=grouped
    )


@pytest.mark.parametrize("metric", METRICS)
def test_a_restored_scorer_goes_on_as_the_one_before(metric):
    bank, later = gaussians(3, 300, 6), gaussians(4, 40, 6)
    groups = [f"g{number // 3}" if number % 2 else None for number in range(300)]

    def grown(is_restored):
        scorer = LiveDN2(width=6, params=DN2Params(k=3, metric=metric))
        scorer.add_normal(np.arange(300), keys_of(np.arange(300)), bank, groups)
        scorer.add_anomalous(np.arange(900, 905), gaussians(5, 5, 6))
        scorer.calibration()
        if is_restored:
            grouped = {number: group for number, group in enumerate(groups) if group is not None}
            scorer = restored(scorer, grouped)
        scorer.remove(np.arange(0, 60, 4))
        scorer.add_normal(np.arange(400, 440), keys_of(np.arange(400, 440)), later, ["g1"] * 40)
        scorer.add_anomalous(np.array([950]), later[:1] + 0.5)
        return scorer

    one, other = grown(False), grown(True)
    assert other.calibration().ids.tolist() == one.calibration().ids.tolist()
    assert other.calibration().scores.tolist() == one.calibration().scores.tolist()
    assert other.groups.largest() == one.groups.largest()
    assert other.score(later).score.tolist() == one.score(later).score.tolist()


def test_what_is_restored_is_what_was_written_and_not_computed_again():
    # The control of the test above: had the table been computed afresh, altered distances would not show.
    bank = gaussians(3, 100, 6)
    scorer = live(bank, metric="l2")
    scorer.calibration()
    arrays = {name: array.copy() for name, array in scorer.export_arrays().items()}
    arrays["table.rows.nearest_distances"][:] += 1
    altered = LiveDN2.restore(
        params=scorer.params, bank=scorer.bank, anomalous=scorer.anomalous, arrays=arrays, grouped={}
    )
    assert altered.calibration().scores == pytest.approx(scorer.calibration().scores + 1)
    altered.recalibrate()
    assert altered.calibration().scores.tolist() == scorer.calibration().scores.tolist()
