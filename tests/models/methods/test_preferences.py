"""preferences: answers become a score, an ensemble says what it does not know, and asks just that."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from models.contract import Inputs, Pair, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.preferences import (
    Preferences,
    PreferencesParams,
    answer_loss,
    disagreements,
    left_shares,
    left_stranger,
    most_telling,
)
from models.methods.preferences.features import raw_scores
from models.methods.preferences.rewards import bootstraps
from models.training import seeded
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of

FIRST_BANK_ID = 100_000
LINE = np.arange(12.0)[:, None] * np.ones((1, 3)) + np.random.default_rng(0).normal(0, 0.1, (12, 3))


def fitted(pool, bank, pairs, *, seed=1, **params):
    """A fit on answers about images of a pool, by their places in it."""
    plain = bank_of(bank)
    named = sorted({one for pair in pairs for one in (pair.left, pair.right)})
    compared = [Inputs(ids=np.array(named, np.int64), vectors=np.asarray(pool, np.float32)[named])] if named else []
    reference = Reference(
        bank=[Inputs(ids=one.ids + FIRST_BANK_ID, vectors=one.vectors) for one in plain.bank],
        keys=plain.keys,
        pairs=pairs,
        compared=compared,
    )
    return Preferences(PreferencesParams(**params)).fit(reference, seed=seed)


def answered(random, reward, left, right, by_chance=0.1):
    """What somebody says who sees the reward, and now and then answers without looking."""
    sees = random.random() >= by_chance
    is_left = reward[left] > reward[right] if sees else random.random() < 0.5
    return Pair(int(left), int(right), "left" if is_left else "right")


def any_pair(random, n):
    return tuple(random.choice(n, 2, replace=False).tolist())


# --- by hand


def test_answers_are_shares_and_who_cannot_say_says_nothing():
    pairs = [Pair(1, 2, "left"), Pair(3, 4, "cannot_say"), Pair(5, 6, "same"), Pair(7, 8, "right")]
    told, shares = left_shares(pairs)
    assert [one.left for one in told] == [1, 5, 7]
    assert shares.tolist() == [1.0, 0.5, 0.0]


def test_a_tenth_of_the_answers_is_chance():
    sure = torch.tensor([0.0, 50.0, -50.0], dtype=torch.float64)
    assert left_stranger(sure).tolist() == pytest.approx([0.5, 0.95, 0.05])
    even = answer_loss(torch.zeros(1), torch.tensor([0.5]))
    assert float(even) == pytest.approx(math.log(2))
    # "Same" costs least where the rewards are equal.
    half = torch.full((3,), 0.5, dtype=torch.float64)
    assert int(answer_loss(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), half).argmin()) == 1


def test_one_answer_costs_at_most_minus_log_0_05():
    difference = torch.linspace(-1000, 1000, 401, dtype=torch.float64)
    most = -math.log(0.05)
    for share in (0.0, 0.5, 1.0):
        assert float(answer_loss(difference, torch.full_like(difference, share)).max()) <= most + 1e-12
    # Negative control: without chance one wrong answer costs without bound.
    plain = -torch.nn.functional.logsigmoid(difference)
    assert float(plain.max()) > 100


def test_a_raw_score_is_the_mean_distance_to_other_bank_images():
    bank = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], np.float32)
    ids = np.array([7, 8, 9])
    assert raw_scores(bank[:1], np.array([1]), bank, ids, 2).tolist() == [2.5]
    assert raw_scores(bank[:1], np.array([7]), bank, ids, 2).tolist() == [7.5], "an image is not its own neighbour"


def test_each_member_sees_as_many_answers_as_there_are():
    counts = bootstraps(40, 6, seeded(0))
    assert counts.shape == (40, 6)
    assert counts.sum(dim=0).tolist() == [40.0] * 6
    assert not torch.equal(counts[:, 0], counts[:, 1])
    assert 0.25 < float((counts == 0).float().mean()) < 0.5  # about 1/e


# --- the mechanism


def test_the_pair_asked_is_where_the_ensemble_disagrees_most():
    random = np.random.default_rng(3)
    rewards = random.normal(size=(9, 4))
    ids = np.arange(50, 59)
    expected = {}
    for one, other in combinations(range(9), 2):
        shares = [0.9 * expit(rewards[one, member] - rewards[other, member]) + 0.05 for member in range(4)]
        expected[one, other] = np.var(shares)
    table = disagreements(rewards)
    for (one, other), variance in expected.items():
        assert table[one, other] == pytest.approx(variance, abs=1e-12)
        assert table[other, one] == pytest.approx(variance, abs=1e-12)
    ranked = sorted(expected, key=lambda pair: -expected[pair])
    (asked,) = most_telling(table, ids, (), 1)
    assert {asked.left - 50, asked.right - 50} == set(ranked[0])
    assert asked.disagreement == pytest.approx(expected[ranked[0]])
    # What was asked is not asked again, whichever image came first.
    (following,) = most_telling(table, ids, [(asked.right, asked.left)], 1)
    assert {following.left - 50, following.right - 50} == set(ranked[1])
    # Negative control: an ensemble of one mind has nothing to ask about, however close the rewards.
    assert disagreements(np.repeat(rewards[:, :1], 4, axis=1)).max() < 1e-15
    several = most_telling(table, ids, (), 20)
    assert len({one for pair in several for one in (pair.left, pair.right)}) == 2 * len(several) == 8
    assert [one.disagreement for one in several] == sorted((one.disagreement for one in several), reverse=True)


def test_neither_side_is_favoured():
    table = disagreements(np.random.default_rng(4).normal(size=(200, 3)))
    asked = most_telling(table, np.arange(200), (), 100)
    assert 25 < sum(one.left < one.right for one in asked) < 75
    assert most_telling(np.zeros((0, 0)), np.zeros(0, np.int64), (), 3) == []
    assert most_telling(np.zeros((1, 1)), np.zeros(1, np.int64), (), 3) == []


def test_members_are_standardised_before_they_are_averaged():
    pairs = [Pair(one, one + 1, "right") for one in range(11)]
    scorer = fitted(LINE, LINE[:6], pairs)
    asked = inputs_of(np.random.default_rng(1).normal(5, 3, (20, 3)))
    before = scorer.score(asked).image
    with torch.no_grad():
        scorer.net.outer[0] *= 1000.0  # one member shouts
    scorer.middle[0] *= 1000.0
    scorer.spread[0] *= 1000.0
    assert scorer.score(asked).image == pytest.approx(before, rel=1e-4, abs=1e-5)
    # Negative control: without its scale it drowns the others.
    scorer.spread[0] /= 1000.0
    assert np.abs(scorer.score(asked).image).max() > 50 * np.abs(before).max()


def hidden_reward(seed, *, turned=False):
    """Spearman correlation with a hidden linear reward, after 200 answers of which a tenth are random."""
    random = np.random.default_rng(seed)
    pool, direction = random.normal(size=(300, 10)), random.normal(size=10)
    reward = pool @ direction
    pairs = [answered(random, reward, *any_pair(random, 300)) for _ in range(200)]
    if turned:
        pairs = [Pair(one.left, one.right, random.choice(["left", "right"])) for one in pairs]
    scorer = fitted(pool, random.normal(size=(60, 10)), pairs, components=10)
    return spearmanr(scorer.score(inputs_of(pool)).image, reward).statistic


def test_a_hidden_reward_is_found_from_two_hundred_answers():
    assert np.mean([hidden_reward(seed) for seed in range(5)]) >= 0.9
    # Negative control: answers of somebody who looks at nothing.
    assert np.mean([hidden_reward(seed, turned=True) for seed in range(2)]) < 0.5


def ranking_quality(seed, *, by_choice):
    """Spearman correlation on unseen images after 8, 16, 24, 32 and 40 answers.

    Four fifths of the images are nearly alike, as on an inspection line: most pairs drawn by chance say little.
    """
    random = np.random.default_rng(seed)
    direction = random.normal(size=8)
    direction /= np.linalg.norm(direction)
    pool = random.normal(size=(200, 8))
    pool[random.random(200) > 0.2] *= 0.1
    unseen, bank = random.normal(size=(200, 8)), random.normal(size=(40, 8)) * 0.1
    reward = 4 * pool @ direction
    pairs = [answered(random, reward, *any_pair(random, 200)) for _ in range(8)]
    qualities = []
    for number in range(5):
        scorer = fitted(pool, bank, pairs, seed=number, components=8)
        qualities.append(spearmanr(scorer.score(inputs_of(unseen)).image, unseen @ direction).statistic)
        asked = [(one.left, one.right) for one in pairs]
        if by_choice:
            following = [(one.left, one.right) for one in scorer.next_pairs(inputs_of(pool), asked, 8)]
        else:
            following = [any_pair(random, 200) for _ in range(8)]
        pairs = pairs + [answered(random, reward, *one) for one in following]
    return qualities


def test_chosen_pairs_reach_the_same_ranking_with_fewer_answers():
    chosen = np.mean([ranking_quality(seed, by_choice=True) for seed in range(5)], axis=0)
    drawn = np.mean([ranking_quality(seed, by_choice=False) for seed in range(5)], axis=0)
    assert chosen[0] == drawn[0], "the first answers are the same"
    assert (chosen[1:] - drawn[1:]).mean() >= 0.04
    enough = 0.78
    assert 8 * (1 + np.argmax(chosen >= enough)) < 8 * (1 + np.argmax(drawn >= enough))
    assert drawn[-1] >= enough, "pairs drawn by chance get there too"


# --- the fitted scorer


def test_answers_that_say_nothing_change_nothing():
    pairs = [Pair(one, one + 1, "right") for one in range(11)]
    plain = fitted(LINE, LINE[:6], pairs).export()
    more = fitted(LINE, LINE[:6], [*pairs[:4], Pair(0, 11, "cannot_say"), *pairs[4:]]).export()
    for name, array in plain.arrays.items():
        assert array.tobytes() == more.arrays[name].tobytes(), name


@pytest.mark.parametrize("hidden", [0, 8])
def test_scores_hold(hidden):
    pairs = [Pair(one, one + 1, "right" if one % 5 else "same") for one in range(11)]
    method = Preferences(PreferencesParams(hidden=hidden))
    scorer = fitted(LINE, LINE[:6], pairs, hidden=hidden)
    assert spearmanr(scorer.score(inputs_of(LINE)).image, np.arange(12)).statistic > 0.9
    assert_scores_hold(method, scorer, inputs_of(LINE))
    assert scorer.answers == 11


def test_each_way_to_fail():
    pairs = [Pair(one, one + 1, "right") for one in range(11)]
    with pytest.raises(FitRefused, match="at least 5"):
        fitted(LINE, LINE[:6], [*pairs[:4], *(Pair(one, 11, "cannot_say") for one in range(10))])
    with pytest.raises(FitRefused, match="alike"):
        fitted(np.ones((12, 3)), np.ones((6, 3)), pairs)
    with pytest.raises(BankTooSmall):
        fitted(LINE, LINE[:1], pairs)
    with pytest.raises(ParameterInvalid):
        Preferences(PreferencesParams()).fit(
            Reference(bank=[Inputs(ids=np.arange(4))], keys=np.arange(4, dtype=np.uint64)), seed=0
        )
