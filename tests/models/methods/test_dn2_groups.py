"""dn2 on sets of images: pooling, where references come from, calibration, and whose fault a score is."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import Metric
from models.errors import BankTooSmall, ParameterInvalid, SetSizeMismatch
from models.judging import anomalous, make_calibration
from models.methods.dn2 import DN2Params, LiveDN2, Pooling, make_group_bank, pool
from models.methods.dn2.groups import (
    drawn_group_bank,
    images_needed,
    member_shares,
    registered_group_bank,
)
from tests.models.methods.test_dn2 import gaussians, keys_of, live
from tests.oracles import dn2 as oracle

METRICS = [Metric.COSINE, Metric.L2]
awkward = st.lists(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, -0.0, 0.0, 1e8, -1e8, 1e-8, 3.0]), min_size=3, max_size=3),
    min_size=2,
    max_size=7,
)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# --- pooling
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", list(Pooling))
def test_pooling_equals_a_loop(pooling):
    vectors = gaussians(1, 6, 4)
    assert pool(vectors, pooling) == pytest.approx(oracle.pooled(vectors, pooling), rel=1e-6)
    assert pool(vectors, pooling).dtype == np.float32


@given(vectors=awkward, order=st.randoms(use_true_random=False))
def test_mean_and_max_ignore_order_to_the_bit(vectors, order):
    shuffled = list(vectors)
    order.shuffle(shuffled)
    for pooling in (Pooling.MEAN, Pooling.MAX):
        one, other = (pool(np.array(v, dtype=np.float32), pooling) for v in (vectors, shuffled))
        assert one.tobytes() == other.tobytes()


def test_a_plain_sum_does_not_ignore_order():
    # Negative control: float addition is not associative, which is why the mean sorts first.
    values = np.array([[0.1], [1e8], [-1e8], [0.2]], dtype=np.float32)
    plain = {sum(v[0] for v in values[list(order)]).tobytes() for order in permutations(range(4))}
    assert len(plain) > 1
    assert len({pool(values[list(order)], "mean").tobytes() for order in permutations(range(4))}) == 1


def test_concat_keeps_order():
    vectors = gaussians(2, 3, 2)
    assert pool(vectors, "concat").tolist() == vectors.ravel().tolist()
    assert pool(vectors[::-1], "concat").tolist() != pool(vectors, "concat").tolist()


def test_pooling_refusals():
    with pytest.raises(SetSizeMismatch, match="at least 1 image; got 0"):
        pool(np.zeros((0, 3), dtype=np.float32), "mean")
    with pytest.raises(ParameterInvalid, match="`mean`, `max`, `concat`; got 'median'"):
        pool(gaussians(1, 2, 2), "median")


# --- registered groups
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("pooling", list(Pooling))
def test_registered_groups_equal_a_double_loop(metric, pooling):
    groups = {f"lot {i:02}": gaussians(10 + i, 4, 3) for i in range(12)}
    asked = gaussians(50, 4, 3)
    made = registered_group_bank(groups, params=DN2Params(metric=metric), pooling=pooling)
    prepare = unit if metric is Metric.COSINE else (lambda rows: rows)
    pooled = [oracle.pooled(prepare(groups[name]), pooling) for name in sorted(groups)]
    query = oracle.pooled(prepare(asked), pooling)
    found = made.score(asked)
    assert found.score == pytest.approx(oracle.scores([query], pooled, 2, metric)[0], rel=1e-4)
    assert made.calibration == pytest.approx(oracle.leave_one_out(pooled, 2, metric), rel=1e-4)
    assert (made.mode, made.n, len(made), made.k) == ("registered", 12, 12, 2)
    distances = {name: oracle.distance(query, p, metric) for name, p in zip(sorted(groups), pooled, strict=True)}
    assert [n.name for n in found.neighbours] == sorted(distances, key=distances.get)[:3]
    assert found.neighbours[0].distance == pytest.approx(min(distances.values()), rel=1e-4)
    assert found.neighbours[0].ids == ()


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX])
def test_a_group_score_ignores_the_order_of_the_set(pooling):
    scorer = live(gaussians(3, 200, 8))
    made = make_group_bank(scorer, {}, 5, pooling=pooling)
    asked, order = gaussians(4, 5, 8), np.array([3, 1, 4, 0, 2])
    one, other = made.score(asked), made.score(asked[order])
    assert one.score == other.score
    assert one.neighbours == other.neighbours
    assert one.shares[order] == pytest.approx(other.shares, abs=1e-12)
    # Negative control: concat is about order.
    by_place = make_group_bank(scorer, {}, 5, pooling=Pooling.CONCAT)
    assert by_place.score(asked).score != by_place.score(asked[order]).score


def test_few_registered_groups_have_fewer_neighbours_to_average():
    groups = {str(i): gaussians(i, 3, 2) for i in range(3)}
    made = registered_group_bank(groups, params=DN2Params(metric="l2", k=8))
    assert (made.k, made.n) == (2, 3)
    alone = registered_group_bank({"only": gaussians(1, 3, 2)}, params=DN2Params(metric="l2"))
    assert (alone.k, alone.n) == (1, 0)
    assert alone.score(gaussians(1, 3, 2)).score == pytest.approx(0)


def test_concat_needs_sets_of_one_size():
    groups = {f"g{i}": gaussians(i, 3, 2) for i in range(10)}
    made = registered_group_bank(groups, params=DN2Params(), pooling="concat")
    with pytest.raises(SetSizeMismatch, match=r"must hold 3 images, .* got 2"):
        made.score(gaussians(1, 2, 2))
    with pytest.raises(SetSizeMismatch, match="Group `other` must hold 3 images, as group `g0` does"):
        registered_group_bank({**groups, "other": gaussians(1, 4, 2)}, params=DN2Params(), pooling="concat")
    # Mean and max take any size.
    registered_group_bank({**groups, "other": gaussians(1, 4, 2)}, params=DN2Params()).score(gaussians(1, 7, 2))


def test_registered_refusals():
    with pytest.raises(BankTooSmall, match="at least 1; got 0"):
        registered_group_bank({}, params=DN2Params())
    with pytest.raises(SetSizeMismatch):
        registered_group_bank({"empty": np.zeros((0, 2), dtype=np.float32)}, params=DN2Params())


# --- drawn sets
# ------------------------------------------------------------------------------------------------------


def members_of(made):
    return [set(label.ids) for label in made._labels]


def test_reference_and_calibration_share_no_image(monkeypatch):
    scorer = live(gaussians(5, 101, 3))
    asked_for = []
    fetch = scorer.bank.vectors
    monkeypatch.setattr(scorer.bank, "vectors", lambda ids: asked_for.append(set(ids.tolist())) or fetch(ids))
    made = drawn_group_bank(scorer, 5)
    n_reference = len(made)
    reference, held_out = asked_for[:n_reference], asked_for[n_reference:]
    assert reference == members_of(made)
    assert n_reference == 256
    assert all(len(one) == 5 for one in asked_for)
    assert made.n == len(held_out) == 10  # floor(half / 5), half being 50 or 51
    assert not set.union(*reference) & set.union(*held_out)
    assert sum(map(len, held_out)) == len(set.union(*held_out))


def test_the_draw_is_a_function_of_the_bank():
    bank = gaussians(6, 60, 3)
    order = np.random.default_rng(0).permutation(60)
    shuffled = LiveDN2(width=3, params=DN2Params())
    for part in np.array_split(order, 7):
        shuffled.add_normal(part, keys_of(part), bank[part])
    one, other = drawn_group_bank(live(bank), 4), drawn_group_bank(shuffled, 4)
    assert members_of(one) == members_of(other)
    assert one.calibration.tobytes() == other.calibration.tobytes()
    # Another set of keys draws other sets.
    rekeyed = LiveDN2(width=3, params=DN2Params())
    rekeyed.add_normal(np.arange(60), keys_of(np.arange(60) + 7), bank)
    assert members_of(drawn_group_bank(rekeyed, 4)) != members_of(one)


def test_a_burst_stays_in_one_half():
    groups = [f"burst {i // 4}" for i in range(80)]
    scorer = live(gaussians(7, 80, 3), groups=groups)
    made = drawn_group_bank(scorer, 2)
    in_reference = set.union(*members_of(made))
    assert 30 <= len(in_reference) <= 50
    for burst in range(20):
        assert len(in_reference & set(range(4 * burst, 4 * burst + 4))) in (0, 4)
    # Negative control: without the tags bursts are divided.
    divided = set.union(*members_of(drawn_group_bank(live(gaussians(7, 80, 3)), 2)))
    assert any(len(divided & set(range(4 * b, 4 * b + 4))) not in (0, 4) for b in range(20))


def test_too_small_a_bank_says_how_many_images_are_needed():
    scorer = live(gaussians(8, 19, 3))
    sentence = "at least 20 images to score a set of 10, and 200 for a verdict, or 10 groups .* got 19 images"
    with pytest.raises(BankTooSmall, match=sentence):
        make_group_bank(scorer, {}, 10)
    assert images_needed(10) == 200
    made = make_group_bank(live(gaussians(8, 20, 3)), {}, 10)
    assert made.n == 1
    assert anomalous([made.score(gaussians(9, 10, 3)).score], make_calibration(made.calibration, 0.1)) is None
    with pytest.raises(SetSizeMismatch, match="at least 1 image; got 0"):
        drawn_group_bank(scorer, 0)


def test_a_verdict_needs_ten_sets_in_each_half():
    enough = make_group_bank(live(gaussians(10, images_needed(3), 3)), {}, 3)
    assert make_calibration(enough.calibration, 0.1).threshold is not None
    short = make_group_bank(live(gaussians(10, images_needed(3) - 2, 3)), {}, 3)
    assert make_calibration(short.calibration, 0.1).threshold is None


def test_drawn_sets_are_scored_by_sets_of_their_size_only():
    made = make_group_bank(live(gaussians(11, 60, 3)), {}, 4)
    with pytest.raises(SetSizeMismatch, match="must hold 4 images"):
        made.score(gaussians(1, 3, 3))


def test_ten_registered_groups_win_over_drawn_sets_and_nine_do_not():
    scorer = live(gaussians(12, 60, 3))
    nine = {str(i): gaussians(i, 3, 3) for i in range(9)}
    assert make_group_bank(scorer, nine, 3).mode == "drawn"
    assert make_group_bank(scorer, {**nine, "9": gaussians(9, 3, 3)}, 3).mode == "registered"
    # Too few images to draw from: a few groups are better than nothing.
    assert make_group_bank(live(gaussians(12, 5, 3)), nine, 3).mode == "registered"


@pytest.mark.parametrize("mode", ["drawn", "registered"])
def test_normal_sets_alarm_at_the_promised_rate(mode):
    # 10 % of 20 calibration sets: 2/21. 50 banks, 40 new sets each.
    random = np.random.default_rng(13)
    alarms = []
    for _ in range(50):
        scorer = live(random.normal(size=(160 if mode == "drawn" else 1, 4)).astype(np.float32), metric="l2")
        registered = {str(i): random.normal(size=(4, 4)).astype(np.float32) for i in range(20)}
        made = make_group_bank(scorer, registered if mode == "registered" else {}, 4)
        assert (made.mode, made.n) == (mode, 20)
        calibration = make_calibration(made.calibration, 0.1)
        new = [made.score(random.normal(size=(4, 4)).astype(np.float32)).score for _ in range(40)]
        alarms.append(anomalous(new, calibration).mean())
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) <= 2 / 21 + 3 * error
    assert np.mean(alarms) >= (2 / 21 - 3 * error if mode == "drawn" else 0.02)


def test_sets_strange_only_together_are_found():
    # No member is strange alone; the set is, for its members lean one way. Margin 0.2, mean of 5 seeds.
    gains = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        scorer = live(random.normal(size=(400, 8)).astype(np.float32), metric="l2")
        made = make_group_bank(scorer, {}, 10)
        rates = {}
        for name, shift in (("normal", 0.0), ("leaning", 0.7)):
            sets = (random.normal(size=(30, 10, 8)) + shift).astype(np.float32)
            border = make_calibration(made.calibration, 0.1)
            rates[name] = anomalous([made.score(one).score for one in sets], border).mean()
            single = make_calibration(scorer.calibration().scores, 0.1)
            rates[name + " one by one"] = anomalous(scorer.score(sets[:, 0]).score, single).mean()
        gains.append(rates["leaning"] - rates["leaning one by one"])
    assert np.mean(gains) > 0.2


# --- shares
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("pooling", list(Pooling))
def test_shares_split_the_squared_distance_without_rest(metric, pooling):
    members, reference = gaussians(14, 5, 6), pool(gaussians(15, 5, 6), pooling)
    shares = member_shares(members, reference, pooling, metric)
    assert shares.shape == (5,)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert pooling is Pooling.MEAN or (shares >= 0).all()


def test_shares_of_a_mean_by_hand():
    # Reference 0; the mean of 3 and -1 is 1, squared distance 1. Parts: 3/2 and -1/2.
    shares = member_shares(
        np.array([[3.0], [-1.0]], dtype=np.float32), np.zeros(1, dtype=np.float32), "mean", Metric.L2
    )
    assert shares.tolist() == [1.5, -0.5]


def test_shares_of_a_maximum_go_to_who_holds_it():
    members = np.array([[4.0, 0.0, 1.0], [0.0, 3.0, 1.0]], dtype=np.float32)
    shares = member_shares(members, np.array([0.0, 0.0, 0.0], dtype=np.float32), "max", Metric.L2)
    assert shares.tolist() == pytest.approx([(16 + 0.5) / 26, (9 + 0.5) / 26])  # the tie is shared equally


def test_shares_of_places():
    members = np.array([[1.0, 0.0], [0.0, 3.0]], dtype=np.float32)
    shares = member_shares(members, np.zeros(4, dtype=np.float32), "concat", Metric.L2)
    assert shares.tolist() == pytest.approx([0.1, 0.9])


def test_shares_at_distance_zero_are_equal():
    members = gaussians(16, 4, 3)
    for pooling in Pooling:
        for metric in METRICS:
            assert member_shares(members, pool(members, pooling), pooling, metric).tolist() == [0.25] * 4


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("pooling", list(Pooling))
def test_the_odd_member_has_the_largest_share(metric, pooling):
    hits = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        bank = (random.normal(size=(120, 6)) * 0.3 + np.eye(6)[0] * 3).astype(np.float32)
        made = make_group_bank(live(bank, metric=metric), {}, 5, pooling=pooling)
        asked = (random.normal(size=(5, 6)) * 0.3 + np.eye(6)[0] * 3).astype(np.float32)
        asked[seed % 5] += np.eye(6)[1].astype(np.float32) * 4
        hits += int(np.argmax(made.score(asked).shares) == seed % 5)
    assert hits >= 19
