"""dn2, the live scorer: by hand, against a double loop, its properties, and each way to refuse."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Metric
from index.errors import IdTaken, NotFinite, WidthMismatch
from models.errors import BankTooSmall, NothingToCompare, ParameterInvalid
from models.judging import anomalous, make_calibration, p_values
from models.methods.dn2 import DN2Params, LiveDN2
from models.methods.dn2.maths import mean_of_nearest, unit_rows, weighed_by_known_defects
from models.pooling import ScorePooling, disjoint_sets, pooled
from tests.oracles import dn2 as oracle

METRICS = [Metric.COSINE, Metric.L2]


def keys_of(ids):
    return (np.asarray(ids, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)


def live(bank, defects=None, groups=None, **params):
    bank = np.asarray(bank, dtype=np.float32)
    scorer = LiveDN2(width=bank.shape[1], params=DN2Params(**params))
    ids = np.arange(len(bank))
    scorer.add_normal(ids, keys_of(ids), bank, groups)
    if defects is not None:
        scorer.add_anomalous(10_000 + np.arange(len(defects)), np.asarray(defects, dtype=np.float32))
    return scorer


def gaussians(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- by hand
# ---------------------------------------------------------------------------------------------------------


def test_three_points_on_paper():
    scorer = live([[0, 0], [3, 4], [0, 10]], metric="l2")
    scores = scorer.score(np.array([[0, 0], [0, 5]], dtype=np.float32), k=2, neighbours=2)
    # (0, 0): distances 0, 5, 10; (0, 5): 5, sqrt(10), 5.
    assert scores.score.tolist() == pytest.approx([2.5, (np.sqrt(10) + 5) / 2])
    assert scores.neighbours.ids.tolist() == [[0, 1], [1, 0]]  # a tie at 5: the lowest id
    assert scores.neighbours.distances[0].tolist() == [0.0, 5.0]
    assert scores.score.dtype == np.float32


def test_leave_one_out_on_paper():
    scorer = live([[0.0], [1.0], [3.0], [7.0]], metric="l2")
    calibration = scorer.calibration(k=1)
    assert dict(zip(calibration.ids.tolist(), calibration.scores.tolist(), strict=True)) == {0: 1, 1: 1, 2: 2, 3: 4}
    ids, scores = scorer.leave_one_out(k=2)
    assert ids.tolist() == [0, 1, 2, 3]
    assert scores.tolist() == [2.0, 1.5, 2.5, 5.0]


def test_a_taught_defect_raises_what_lies_beside_it_only():
    scorer = live([[0.0], [1.0]], metric="l2")
    asked = np.array([[5.0], [-4.0], [0.4]], dtype=np.float32)
    before = scorer.score(asked, k=1)
    assert before.known.ids.tolist() == [[-1]] * 3
    assert before.score.tolist() == before.plain.tolist()
    scorer.add_anomalous(np.array([9]), np.array([[6.0]], dtype=np.float32))
    after = scorer.score(asked, k=1)
    assert after.plain.tolist() == before.plain.tolist()
    assert after.score[0] == 16.0  # d_n = 4, d_a = 1: 4 * 4/1
    assert after.score[1:].tolist() == before.score[1:].tolist()  # farther from the defect than from the normals
    assert after.known.ids[:, 0].tolist() == [9, 9, 9]
    assert scorer.score(np.array([[6.0]], dtype=np.float32), k=1).score[0] == 5000.0  # on the defect: 5 * 1000


# --- oracle
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("taught", [0, 3])
def test_scores_equal_a_double_loop(metric, k, taught):
    bank, asked, defects = gaussians(1, 40, 6), gaussians(2, 15, 6), gaussians(3, taught, 6)
    scorer = live(bank, defects, metric=metric)
    expected = oracle.scores(asked, bank, k, metric, defects)
    assert scorer.score(asked, k=k).score == pytest.approx(expected, rel=2e-5)
    # Negative control: another k is another score.
    assert scorer.score(asked, k=k + 1).score != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("taught", [0, 3])
def test_calibration_and_leave_one_out_equal_a_double_loop(metric, taught):
    bank, defects = gaussians(4, 50, 5), gaussians(5, taught, 5)
    groups = [f"g{i % 4}" if i < 16 else None for i in range(50)]
    scorer = live(bank, defects, groups, metric=metric)
    expected = oracle.leave_one_out(bank, 2, metric, groups, defects)
    ids, scores = scorer.leave_one_out()
    assert ids.tolist() == list(range(50))
    assert scores == pytest.approx(expected, rel=2e-5)
    calibration = scorer.calibration()
    assert calibration.scores == pytest.approx(expected[calibration.ids], rel=2e-5)
    # Negative control: with its group in, an image is judged by its mates.
    assert scores != pytest.approx(oracle.leave_one_out(bank, 2, metric, None or (), defects), rel=1e-3)


def test_normalized_l2_orders_as_cosine_does():
    bank, asked = gaussians(6, 30, 8) * 5, gaussians(7, 12, 8)
    cosine = live(bank, metric="cosine").score(asked, k=1).score
    l2 = live(bank, metric="l2", normalize=True).score(asked * 3, k=1).score
    assert l2**2 / 2 == pytest.approx(cosine, rel=1e-4)
    plain = live(bank, metric="l2").score(asked, k=1).score  # negative control
    assert plain**2 / 2 != pytest.approx(cosine, rel=1e-1)


# --- properties
# ------------------------------------------------------------------------------------------------------


def test_a_bank_image_has_distance_zero_and_none_when_left_out():
    bank = gaussians(8, 20, 4)
    scorer = live(bank)
    ids = np.arange(20)
    seen = scorer.score(bank, k=1)
    assert seen.score == pytest.approx(0, abs=1e-6)
    assert seen.neighbours.ids[:, 0].tolist() == ids.tolist()
    left_out = scorer.score(bank, exclude=ids)
    assert not (left_out.neighbours.ids == ids[:, None]).any()
    assert left_out.neighbours.ids.shape == (20, 3)
    _, scores = scorer.leave_one_out()
    assert left_out.score.tobytes() == scores.tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_a_bank_image_is_left_out_with_its_group(metric):
    bank = gaussians(50, 60, 4)
    bank[:20] = bank[0] + 0.01 * gaussians(51, 20, 4)  # a burst
    groups = ["burst"] * 20 + [f"g{i % 7}" if i < 40 else None for i in range(20, 60)]
    scorer = live(bank, gaussians(52, 2, 4), groups, metric=metric)
    ids = np.arange(60)
    found = scorer.score(bank, exclude=ids)
    assert found.score.tobytes() == scorer.leave_one_out()[1].tobytes()
    for number, near in enumerate(found.neighbours.ids.tolist()):
        assert not any(groups[one] == groups[number] is not None for one in near)
    slopes = scorer.slopes(bank[:3], exclude=ids[:3])
    assert np.isfinite(slopes).all()
    # Who asks about it as about a stranger finds the burst.
    assert scorer.score(bank[:1]).score[0] < found.score[0]


@pytest.mark.parametrize("metric", METRICS)
def test_images_of_a_set_and_their_groups_vouch_for_none_of_it(metric):
    bank = gaussians(54, 200, 4)
    bank[:90] = bank[0] + 0.01 * gaussians(55, 90, 4)  # more than one search fetches
    groups = [f"burst {i % 2}" if 3 <= i < 90 else None for i in range(200)]
    scorer = live(bank, gaussians(56, 2, 4), groups, metric=metric)
    asked = np.array([0, 1, 3])  # the last brings half of the burst along
    left = [i for i in range(200) if i not in (0, 1) and not (3 <= i < 90 and i % 2)]
    expected = live(bank[left], gaussians(56, 2, 4), metric=metric).score(bank[asked]).score
    assert scorer.score(bank[asked], exclude=asked, is_set=True).score == pytest.approx(expected, rel=1e-5)
    alone = scorer.score(bank[asked], exclude=asked).score
    assert (alone <= expected * 1.0001).all() and alone[0] < 0.9 * expected[0]  # the others vouch for it
    sent = np.full(3, -1)
    assert (
        scorer.score(bank[asked], exclude=sent, is_set=True).score.tobytes()
        == scorer.score(bank[asked]).score.tobytes()
    )
    with pytest.raises(NothingToCompare, match="must hold 2 normal images outside the set"):
        scorer.score(bank, exclude=np.arange(200), is_set=True)


def test_an_image_of_the_only_group_is_judged_by_its_mates():
    bank = gaussians(53, 6, 4)
    scorer = live(bank, groups=["all"] * 6)
    found = scorer.score(bank, exclude=np.arange(6))
    assert found.score.tobytes() == live(bank).score(bank, k=1, exclude=np.arange(6)).score.tobytes()
    assert scorer.calibration().scores.size == 0


def test_leaving_out_concerns_its_own_query_only():
    bank = gaussians(9, 20, 4)
    scorer = live(bank, defects=bank[:2] + 1)
    mixed = scorer.score(bank[:4], exclude=np.array([0, -1, 2, -1]))
    assert mixed.score[1] == scorer.score(bank[1:2]).score[0]
    assert mixed.score[0] == scorer.score(bank[:1], exclude=np.array([0])).score[0]
    defect = scorer.score(bank[:1] + 1, exclude=np.array([10_000]))
    assert defect.known.ids.tolist() == [[10_001]]


@pytest.mark.parametrize("metric", METRICS)
def test_scores_do_not_depend_on_the_batch(metric):
    bank, asked = gaussians(10, 300, 32), gaussians(11, 64, 32)
    scorer = live(bank, gaussians(12, 10, 32), metric=metric, normalize=metric is Metric.L2)
    together = scorer.score(asked)
    alone = [scorer.score(asked[i : i + 1]) for i in range(64)]
    assert together.score.tobytes() == b"".join(one.score.tobytes() for one in alone)
    order = np.random.default_rng(0).permutation(64)
    assert scorer.score(asked[order]).score.tobytes() == together.score[order].tobytes()
    assert together.neighbours.distances.tobytes() == b"".join(one.neighbours.distances.tobytes() for one in alone)


def test_the_caller_s_arrays_are_left_alone():
    bank, asked = gaussians(13, 10, 4), gaussians(14, 3, 4)
    copies = bank.copy(), asked.copy()
    scorer = live(bank, metric="l2", normalize=True)
    scorer.score(asked)
    bank[:] = 0
    assert asked.tobytes() == copies[1].tobytes()
    assert scorer.score(asked).score == pytest.approx(live(copies[0], metric="l2", normalize=True).score(asked).score)


@pytest.mark.parametrize("metric", METRICS)
def test_a_larger_bank_never_gives_a_larger_score(metric):
    bank, asked = gaussians(15, 60, 4), gaussians(16, 20, 4)
    small, large = live(bank[:30], metric=metric), live(bank, metric=metric)
    assert (large.score(asked).score <= small.score(asked).score).all()


@given(
    plain=st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=8),
    to_defect=st.floats(0, 1e6, width=32),
)
def test_the_weighed_score_never_falls_when_the_plain_one_grows(plain, to_defect):
    ascending = np.sort(np.array(plain))
    weighed = weighed_by_known_defects(ascending, np.full(len(plain), to_defect, dtype=np.float32))
    assert (np.diff(weighed) >= 0).all()
    assert (weighed >= ascending).all()
    assert (weighed <= 1000 * ascending).all()


steps = st.lists(
    st.tuples(st.sampled_from(["normal", "anomalous", "remove", "ask"]), st.lists(st.integers(0, 14), max_size=5)),
    max_size=14,
)


@given(steps=steps, metric=st.sampled_from(METRICS))
@settings(max_examples=60, deadline=None)
def test_whatever_came_and_went_only_what_is_there_counts(steps, metric):
    # An id that returns returns with another vector, so that anything remembered of it would show.
    values = gaussians(17, 15, 20, 3)
    scorer = LiveDN2(width=3, params=DN2Params(metric=metric))
    normal, taught = {}, {}
    for turn, (what, numbers) in enumerate([*steps, ("ask", [])]):
        numbers = list(dict.fromkeys(numbers))
        if what == "remove":
            expected = sum(n in normal or n in taught for n in numbers)
            assert scorer.remove(np.array(numbers, dtype=np.int64)) == expected
            normal = {n: v for n, v in normal.items() if n not in numbers}
            taught = {n: v for n, v in taught.items() if n not in numbers}
        elif what == "ask":
            ids, bank = list(normal), list(normal.values())
            calibration = scorer.calibration()
            assert sorted(calibration.ids.tolist()) == (sorted(ids) if len(ids) > 1 else [])
            if len(ids) > 1:
                k = min(2, len(ids) - 1)
                by_id = dict(zip(ids, oracle.leave_one_out(bank, k, metric, (), list(taught.values())), strict=True))
                for number, score in zip(calibration.ids.tolist(), calibration.scores.tolist(), strict=True):
                    assert score == pytest.approx(by_id[number], rel=1e-3, abs=1e-6)
        else:
            new = [n for n in numbers if n not in normal and n not in taught]
            ids, vectors = np.array(new, dtype=np.int64), np.array([values[n, turn] for n in new]).reshape(-1, 3)
            if what == "normal":
                scorer.add_normal(ids, keys_of(ids), vectors)
            else:
                scorer.add_anomalous(ids, vectors)
            (normal if what == "normal" else taught).update(zip(new, vectors, strict=True))


def test_an_image_that_returns_with_other_bytes_is_compared_anew_with_the_defects():
    scorer = live([[0.0], [1.0], [2.0]], [[5.0]], metric="l2")
    assert scorer.calibration(1).scores.tolist() == [1.0, 1.0, 1.0]
    scorer.remove(np.array([2]))
    scorer.add_normal(np.array([2]), keys_of([2]), np.array([[4.0]], dtype=np.float32))
    # Now 1 from the defect and 3 from the next normal image: 3 * 3/1. Before, it was 3 from the defect.
    calibration = scorer.calibration(1)
    assert dict(zip(calibration.ids.tolist(), calibration.scores.tolist(), strict=True)) == {0: 1, 1: 1, 2: 9}


def test_a_forgotten_defect_no_longer_counts_for_the_calibration():
    scorer = live([[0.0], [1.0], [4.0]], [[5.0], [4.5]], metric="l2")
    rows = scorer.calibration(1).ids.tolist()
    assert scorer.calibration(1).scores[rows.index(2)] == 18.0  # 3 * 3/0.5
    assert scorer.remove(np.array([10_001])) == 1
    assert scorer.calibration(1).scores[rows.index(2)] == 9.0
    scorer.remove(np.array([10_000]))
    assert scorer.calibration(1).scores[rows.index(2)] == 3.0


def test_fewer_images_than_k_use_what_every_left_out_image_has():
    bank, asked = gaussians(18, 4, 3), gaussians(19, 5, 3)
    scorer = live(bank, metric="l2")
    for k in (3, 4, 64):
        assert scorer.score(asked, k=k).score == pytest.approx(oracle.scores(asked, bank, 3, "l2"), rel=1e-5)
        assert scorer.calibration(k).scores.size == 4
    alone = live(bank[:1], metric="l2")
    assert alone.score(asked).score == pytest.approx(oracle.scores(asked, bank[:1], 1, "l2"), rel=1e-5)
    assert alone.calibration().scores.size == 0


def test_one_group_alone_scores_but_does_not_calibrate():
    scorer = live(gaussians(20, 12, 3), groups=["burst"] * 12)
    assert scorer.score(gaussians(21, 2, 3)).score.shape == (2,)
    assert scorer.calibration().scores.size == 0
    with pytest.raises(BankTooSmall, match="not all of one group"):
        scorer.leave_one_out()


@pytest.mark.parametrize("taught", [0, 4])
@pytest.mark.parametrize("k", [1, 2])
def test_leave_one_out_keeps_the_promise_at_small_sizes(taught, k):
    # 200 banks of 20: promise 2/21 at 10 %, with room; its standard error over 200 x 5 dependent queries is
    # below 1 %.
    random = np.random.default_rng(22)
    defects = random.normal(2, 1, size=(taught, 3)).astype(np.float32)
    alarms = []
    for _ in range(200):
        drawn = random.normal(size=(25, 3)).astype(np.float32)
        scorer = live(drawn[:20], defects if taught else None, metric="l2")
        made = make_calibration(scorer.calibration(k).scores, 0.1)
        alarms.append(anomalous(scorer.score(drawn[20:], k=k).score, made).mean())
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) <= 2 / 21 + 3 * error
    assert np.mean(alarms) > 0.03  # and is not kept by never alarming


def test_full_conformal_p_values_are_never_above_leave_one_out_ones():
    # The step the proof rests on, image by image: R_i <= S_i, where R_i also sees the query.
    random = np.random.default_rng(23)
    for _ in range(40):
        drawn = random.normal(size=(13, 2)).astype(np.float32)
        scorer = live(drawn[:12], metric="l2")
        p = p_values(scorer.score(drawn[12:]).score, scorer.calibration().scores)[0]
        everyone = live(drawn, metric="l2").leave_one_out()[1]
        assert p >= p_values(everyone[12:], everyone[:12])[0]


@pytest.mark.parametrize("metric", METRICS)
def test_calibration_in_sets_equals_a_double_loop_without_each_set(metric):
    bank, defects = gaussians(60, 41, 3), gaussians(61, 2, 3)
    bank[20:24] = bank[20] + 0.01 * gaussians(62, 4, 3)
    groups = [f"g{i % 3}" if i < 9 else None for i in range(41)]
    scorer = live(bank, defects, groups, metric=metric)
    by_key = np.argsort(keys_of(np.arange(41)))
    expected = []
    for members in by_key[disjoint_sets(41, 4, seed=0)]:
        taken = {groups[one] for one in members} - {None}
        others = [i for i in range(41) if i not in members and groups[i] not in taken]
        expected.append(oracle.scores(bank[members], bank[others], 2, metric, defects))
    found = scorer.calibration_in_sets(4)
    assert found.shape == (10, 4) and found == pytest.approx(np.array(expected), rel=1e-4)
    # What is left over in the memory of a longer history counts for nothing.
    scorer.add_normal(np.arange(50, 60), keys_of(np.arange(50, 60)), gaussians(63, 10, 3))
    assert scorer.calibration_in_sets(4).shape == (12, 4)
    scorer.remove(np.arange(50, 60))
    assert scorer.calibration_in_sets(4).tobytes() == found.tobytes()
    assert scorer.calibration_in_sets(30).shape == (1, 30)
    assert scorer.calibration_in_sets(40).shape == (0, 40)  # one other is left, and k is 2
    assert live(bank[:1]).calibration_in_sets(1).shape == (0, 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("has_defects", [True, False])
def test_scores_in_sets_equal_those_of_each_set_by_itself(metric, has_defects):
    bank, defects = gaussians(70, 300, 3), gaussians(71, 2 * has_defects, 3)
    groups = [f"g{i % 3}" if i < 9 else None for i in range(300)]
    scorer = live(bank, defects, groups, metric=metric)
    # The first two share the group g0, the last shares an image with the third; together more than one search holds.
    sets = [np.array([0, 40]), np.array([3, 41]), np.array([50, 51, 52]), np.arange(60, 250), np.array([52, 290, 291])]
    found = scorer.scores_in_sets(sets)
    for members, of_set in zip(sets, found, strict=True):
        taken = {groups[one] for one in members} - {None}
        others = [i for i in range(300) if i not in members and groups[i] not in taken]
        assert of_set == pytest.approx(oracle.scores(bank[members], bank[others], 2, metric, defects), rel=1e-4)
        alone = scorer.score(bank[members], neighbours=0, exclude=members, is_set=True)
        assert of_set.tobytes() == alone.score.tobytes()
    assert scorer.scores_in_sets([]) == []
    everything = scorer.scores_in_sets([np.arange(299), np.array([1, 2])])
    assert everything[0] is None and everything[1].shape == (2,)
    assert scorer.scores_in_sets([np.array([1]), np.arange(299)])[1] is None


def test_sets_keep_the_promise_at_small_sizes():
    # 200 banks of 60 in 20 sets of 3, 20 new sets each, k = 1, a third of the images in near pairs: promise 1/21.
    random, alarms, by_largest = np.random.default_rng(64), [], []
    for _ in range(200):
        places = random.normal(size=(120, 4))
        places[:20] = places[20:40] + 0.05 * random.normal(size=(20, 4))
        drawn = places[random.permutation(120)].astype(np.float32)
        scorer = live(drawn[:60], metric="l2", k=1)
        new = pooled(scorer.score(drawn[60:]).score.reshape(20, 3), ScorePooling.EXCESS, 1.0)
        mean_of_new = scorer.score(drawn[60:]).score.reshape(20, 3).mean(axis=1)
        sets = scorer.calibration_in_sets(3)
        alarms.append((new > pooled(sets, ScorePooling.EXCESS, 1.0).max()).mean())
        # Negative control: sets that are drawn by what their images score, the largest beside the smallest.
        ordered = np.sort(scorer.calibration().scores)
        level = np.stack([ordered[:20], ordered[20:40], ordered[:39:-1]], axis=1)
        by_largest.append((mean_of_new > pooled(level, ScorePooling.MEAN, 1.0).max()).mean())
    assert np.mean(alarms) <= 1 / 21 + 0.01
    assert np.mean(by_largest) > 1 / 21 + 0.03


def test_bursts_need_their_group():
    # Each part is photographed 5 times. Untagged, the bank's own distances are between photographs of one
    # part, and every new part looks strange.
    random = np.random.default_rng(24)
    alarms = {"tagged": [], "untagged": []}
    for _ in range(40):
        parts = np.repeat(random.normal(size=(20, 8)), 5, axis=0)
        bank = (parts + 0.01 * random.normal(size=parts.shape)).astype(np.float32)
        new = random.normal(size=(20, 8)).astype(np.float32)
        for name, groups in (("tagged", [f"part{i // 5}" for i in range(100)]), ("untagged", None)):
            scorer = live(bank, groups=groups, metric="l2")
            made = make_calibration(scorer.calibration().scores, 0.1)
            alarms[name].append(anomalous(scorer.score(new).score, made).mean())
    assert np.mean(alarms["tagged"]) < 0.15
    assert np.mean(alarms["untagged"]) > 0.8


def test_eight_threads_read_what_one_reads():
    bank = gaussians(25, 3000, 8)
    scorer, alone = live(bank, gaussians(26, 5, 8)), live(bank, gaussians(26, 5, 8))
    asked = gaussians(27, 8, 8)
    # The first reading finishes postponed searches, so all eight begin with it.
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: (scorer.calibration(1 + i % 3).scores, scorer.score(asked).score), range(8)))
    for i, (calibration, scores) in enumerate(results):
        assert calibration.tobytes() == alone.calibration(1 + i % 3).scores.tobytes()
        assert scores.tobytes() == alone.score(asked).score.tobytes()
    assert scorer.calibration().ids.size == 2000


# --- refusals
# --------------------------------------------------------------------------------------------------------


def test_an_empty_bank_is_refused():
    scorer = LiveDN2(width=3, params=DN2Params())
    scorer.add_anomalous(np.array([1]), gaussians(28, 1, 3))
    with pytest.raises(BankTooSmall, match="at least 1 normal image; got 0"):
        scorer.score(gaussians(29, 1, 3))
    assert scorer.calibration().scores.size == 0
    with pytest.raises(BankTooSmall, match="at least 2"):
        scorer.leave_one_out()


def test_the_only_image_cannot_be_compared_with_itself():
    scorer = live(gaussians(30, 1, 3))
    with pytest.raises(NothingToCompare, match="besides the one asked about"):
        scorer.score(gaussians(30, 1, 3), exclude=np.array([0]))


@pytest.mark.parametrize("k", [0, -1, 65])
def test_k_out_of_range_is_refused(k):
    scorer = live(gaussians(31, 5, 3))
    for ask in (lambda: scorer.score(gaussians(31, 1, 3), k=k), lambda: scorer.calibration(k)):
        with pytest.raises(ParameterInvalid, match=f"`k` of method `dn2` must be a whole number from 1 to 64; got {k}"):
            ask()


@pytest.mark.parametrize("k", [0, -1, 513])
def test_k_of_cleaning_out_of_range_is_refused(k):
    with pytest.raises(ParameterInvalid, match=f"`k` of method `dn2` must be a whole number from 1 to 512; got {k}"):
        live(gaussians(31, 5, 3)).leave_one_out(k)


def test_other_refusals():
    scorer = live(gaussians(32, 5, 3), defects=gaussians(33, 1, 3))
    with pytest.raises(ParameterInvalid, match="`neighbours`"):
        scorer.score(gaussians(31, 1, 3), neighbours=-1)
    with pytest.raises(ParameterInvalid, match="`exclude`"):
        scorer.score(gaussians(31, 2, 3), exclude=np.array([1]))
    with pytest.raises(ParameterInvalid, match="`keys`"):
        scorer.add_normal(np.array([50]), keys_of([]), gaussians(31, 1, 3))
    with pytest.raises(ParameterInvalid, match="`groups`"):
        scorer.add_normal(np.array([50]), keys_of([50]), gaussians(31, 1, 3), ["a", "b"])
    with pytest.raises(WidthMismatch):
        scorer.score(gaussians(31, 1, 4))
    with pytest.raises(NotFinite):
        scorer.score(np.full((1, 3), np.nan, dtype=np.float32))


def test_nothing_changes_when_an_addition_is_refused():
    scorer = live(gaussians(34, 5, 3), defects=gaussians(35, 1, 3))
    before = scorer.calibration().scores.tobytes()
    bad = np.array([[0, 0, 0], [np.inf, 0, 0]], dtype=np.float32)
    with pytest.raises(NotFinite):
        scorer.add_normal(np.array([50, 51]), keys_of([50, 51]), bad)
    with pytest.raises(IdTaken, match="must not be a taught defect; got 10000"):
        scorer.add_normal(np.array([50, 10_000]), keys_of([50, 10_000]), gaussians(36, 2, 3))
    with pytest.raises(IdTaken, match="must not be a normal image; got 4"):
        scorer.add_anomalous(np.array([60, 4]), gaussians(36, 2, 3))
    with pytest.raises(IdTaken):
        scorer.add_normal(np.array([4]), keys_of([4]), gaussians(36, 1, 3))
    assert (len(scorer.bank), len(scorer.anomalous)) == (5, 1)
    assert scorer.calibration().scores.tobytes() == before


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"k": 0}, r"`k` of method `dn2` must be greater than or equal to 1; got 0\."),
        ({"k": 65}, r"`k` of method `dn2` must be less than or equal to 64; got 65\."),
        ({"metric": "dot"}, r"`metric` of method `dn2` must be 'l2' or 'cosine'; got 'dot'\."),
        ({"depth": 3}, r"`depth` of method `dn2` is not one of its parameters; they are `k`, `metric`, `normalize`\."),
    ],
)
def test_wrong_parameters_are_refused_with_a_sentence(values, sentence):
    with pytest.raises(ParameterInvalid, match=sentence):
        DN2Params.parse("dn2", values)


def test_parameters_have_defaults():
    assert DN2Params.parse("dn2", {}) == DN2Params(k=2, metric=Metric.COSINE, normalize=False)


# --- maths
# -----------------------------------------------------------------------------------------------------------


def test_the_mean_uses_the_first_k_alone():
    rows = np.array([[1, 2, 9], [3, 3, np.inf]], dtype=np.float32)
    assert mean_of_nearest(rows, 2).tolist() == [1.5, 3.0]


def test_unit_rows():
    assert unit_rows(np.array([[3, 4], [0, 0]], dtype=np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
