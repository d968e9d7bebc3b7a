"""soft_rank: true projections with true gradients, hard where they must be, and a fit that outliers do not bend."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata, spearmanr

from index.errors import WidthMismatch
from models.catalog import installed
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.soft_rank import (
    Regularisation,
    SoftRank,
    SoftRankParams,
    exact_strength,
    soft_rank,
    soft_sort,
    soft_spearman_loss,
    soft_top_k_loss,
    trimmed_components,
    trimmed_loss,
)
from models.methods.soft_rank.isotonic import quadratic_blocks
from models.methods.soft_rank.method import BANK_MIN
from models.training import part_of
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of

KINDS = list(Regularisation)
both = pytest.mark.parametrize("kind", KINDS)


def values(seed, n=6):
    return torch.tensor(np.random.default_rng(seed).normal(size=n))


# --- by hand


def test_two_values_on_paper():
    # z = (0, -1/2), rho = (2, 1): z - rho rises from -2 to -3/2, so both are pooled at -7/4.
    assert soft_rank(torch.tensor([0.0, 1.0]), 2.0).tolist() == [1.75, 1.25]
    assert soft_rank(torch.tensor([0.0, 1.0]), 0.5).tolist() == [2.0, 1.0]
    # Entropic: exp(z) = (1, e^-1/2) shares the sum 3 of the ranks.
    share = 1 / (1 + np.exp(-0.5))
    assert soft_rank(torch.tensor([0.0, 1.0]), 2.0, Regularisation.ENTROPIC).tolist() == pytest.approx(
        [3 * share, 3 * (1 - share)], rel=1e-6
    )
    # (2, 1) / 10 on the permutahedron of (3, 1): pooled, 2 +- 1/20.
    assert soft_sort(torch.tensor([1.0, 3.0]), 10.0).tolist() == pytest.approx([2.05, 1.95])


# --- oracle: the inequality that holds at the projection and nowhere else


@both
@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
def test_ranks_are_the_projection_on_the_permutahedron(kind, strength):
    rows = values(1, 5)
    z, rho = (-rows / strength).numpy(), np.arange(5, 0, -1)
    corners = np.array(list(permutations(rho)))

    def slope(y):  # gradient of the distance from z at y
        return y - z if kind is Regularisation.QUADRATIC else np.log(y) - z

    y = soft_rank(rows, strength, kind).numpy()
    assert ((corners - y) @ slope(y)).min() >= -1e-9
    for size in range(1, 6):  # inside: no subset holds more than the largest ranks do
        assert np.sort(y)[::-1][:size].sum() <= rho[:size].sum() + 1e-9
    # Negative control: another point of the permutahedron does not pass.
    other = soft_rank(rows, strength * 1.5 if strength > 1 else 6.0, kind).numpy()
    assert ((corners - other) @ slope(other)).min() < -1e-3


@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
def test_sorting_is_the_projection_of_the_ranks(strength):
    rows = values(2, 5)
    z, corners = np.arange(5, 0, -1) / strength, np.array(list(permutations(rows.numpy())))
    y = soft_sort(rows, strength).numpy()
    assert ((corners - y) @ (y - z)).min() >= -1e-9
    assert (np.diff(y) <= 1e-12).all()
    hard = np.sort(rows.numpy())[::-1]
    if not np.allclose(y, hard):
        assert ((corners - hard) @ (hard - z)).min() < -1e-3  # negative control


@pytest.mark.parametrize("n", [1, 2, 50])
def test_pooling_equals_scipy_s_regression(n):
    s, w = np.sort(values(9, n).numpy())[::-1], np.sort(values(10, n).numpy())[::-1]
    expected = np.searchsorted(isotonic_regression(s - w, increasing=False).blocks, np.arange(n), side="right") - 1
    assert quadratic_blocks(s, w).tolist() == expected.tolist()


# --- the mechanism


@both
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_ranks_are_exactly_hard_below_the_computed_strength(kind, seed, n):
    rows = values(seed, n)
    border = min(exact_strength(rows.numpy(), kind), 1e6)
    hard = rankdata(-rows.numpy())
    assert soft_rank(rows, border * 0.999, kind).tolist() == hard.tolist()
    if n > 1:  # negative control: above it they are not
        assert soft_rank(rows, border * 1.01, kind).tolist() != hard.tolist()


@both
def test_ranks_sum_to_theirs_and_end_in_the_middle(kind):
    rows = values(3, 9)
    for strength in (1e-3, 0.3, 2.0, 50.0):
        assert float(soft_rank(rows, strength, kind).sum()) == pytest.approx(45, abs=1e-9)
    assert soft_rank(rows, 1e9, kind).numpy() == pytest.approx(5, abs=1e-6)
    assert soft_rank(rows, 1.0, kind).numpy() != pytest.approx(5, abs=1e-2)  # negative control
    equal = soft_rank(torch.tensor([1.0, 1.0, 7.0]), 1e-3, kind)
    assert equal.tolist() == pytest.approx([2.5, 2.5, 1.0])


@both
@pytest.mark.parametrize("function", [soft_rank, soft_sort])
@pytest.mark.parametrize("strength", [0.3, 2.0, 20.0])
def test_gradients_equal_finite_differences(kind, function, strength):
    rows, weights = values(4, 8).requires_grad_(), values(5, 8)
    (gradient,) = torch.autograd.grad((function(rows, strength, kind) * weights).sum(), rows)
    steps = 1e-6 * torch.eye(8, dtype=torch.float64)
    with torch.no_grad():
        high, low = function(rows + steps, strength, kind), function(rows - steps, strength, kind)
    assert gradient.numpy() == pytest.approx(((high - low) @ weights / 2e-6).numpy(), abs=1e-6)
    if function is soft_sort and strength < 1:
        return  # nothing is pooled yet, so this is hard sorting
    # Negative control: the gradient of hard sorting, or of ranks without their blocks.
    naive = weights[rankdata(-rows.detach().numpy()).astype(int) - 1] if function is soft_sort else -weights / strength
    assert gradient.numpy() != pytest.approx(naive.numpy(), abs=1e-3)


def test_rows_are_ranked_one_by_one():
    table = torch.stack([values(6), values(7)])
    assert torch.equal(soft_rank(table, 0.5)[1], soft_rank(table[1], 0.5))
    assert soft_rank(table.float(), 0.5).dtype == torch.float32


def bent_bank(seed, n=180, strangers=20):
    """A plane of three dimensions in twenty, and strangers of one kind far off it."""
    random = np.random.default_rng(seed)
    plane = np.linalg.qr(random.normal(size=(20, 3)))[0]
    away = random.normal(size=20)
    away -= plane @ (plane.T @ away)
    good = 3 * random.normal(size=(n, 3)) @ plane.T + 0.3 * random.normal(size=(n, 20))
    bad = 12 * away / np.linalg.norm(away) + 0.5 * random.normal(size=(strangers, 20))
    return plane, np.vstack([good, bad])


def agreement(softness, trimmed_share=0.15):
    """Cosine of the largest angle between the planted plane and the one found, mean of 5 seeds."""
    found = []
    for seed in range(5):
        plane, vectors = bent_bank(seed)
        fit = trimmed_components(
            vectors,
            3,
            trimmed_share=trimmed_share,
            softness=softness,
            regularisation=Regularisation.QUADRATIC,
            steps_max=30,
            progress=part_of(None, 0, 1),
        )
        found.append(np.linalg.svd(fit.directions.components @ plane)[1].min())
    return np.mean(found)


def test_outliers_do_not_bend_the_fit():
    assert agreement(1e-5) > 0.99
    # Negative control: without trimming, by a strength that makes it least squares or by a share of nothing.
    assert agreement(1e6) < 0.9
    assert agreement(1e-5, trimmed_share=0.0) < 0.9


@both
def test_the_trimmed_loss_goes_from_trimmed_to_plain_squares(kind):
    losses = np.array([1.0, 9.0, 2.0, 0.5])
    hard, weights = trimmed_loss(losses, 1, 1e-3, kind)
    assert hard == pytest.approx(3.5 / 3)
    assert weights.tolist() == [1, 0, 1, 1]
    soft, weights = trimmed_loss(losses, 1, 1e9, kind)
    if kind is Regularisation.QUADRATIC:
        assert soft == pytest.approx(12.5 / 4)
        assert weights == pytest.approx(0.75)
    assert soft > hard


def test_the_strangers_are_what_cleaning_drops():
    _, vectors = bent_bank(0)
    scorer = SoftRank(SoftRankParams(components=3, trimmed_share=0.1)).fit(bank_of(vectors), seed=0)
    cleaned = scorer.cleaned_bank()
    assert sorted(cleaned.dropped.tolist()) == list(range(280, 300))
    assert cleaned.kept.tolist() == list(range(100, 280))
    distances = dict(zip(scorer.ids.tolist(), scorer.losses, strict=True))
    assert [distances[i] for i in cleaned.dropped] == sorted((distances[i] for i in cleaned.dropped), reverse=True)
    assert cleaned.scores == pytest.approx(np.sqrt([distances[i] for i in cleaned.dropped]))
    assert (scorer.findings()["images"], scorer.findings()["ignored"]) == (200, 20)
    # Negative control: least squares drops none of them.
    plain = SoftRank(SoftRankParams(components=3, trimmed_share=0.1, softness=1e6)).fit(bank_of(vectors), seed=0)
    assert plain.cleaned_bank().dropped.size == 0


def test_the_spearman_loss_turns_values_into_the_wanted_order():
    wanted = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0]], dtype=torch.float64)
    rows = values(8, 5)[None].clone().requires_grad_()
    start = abs(spearmanr(rows.detach()[0], -wanted[0]).statistic)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(soft_spearman_loss(rows, wanted), rows)
        rows = (rows - 0.1 * gradient).detach().requires_grad_()
    assert spearmanr(rows.detach()[0], -wanted[0]).statistic == pytest.approx(1)
    assert start < 0.9  # negative control: it was not so before


def test_the_top_k_loss_is_nothing_once_the_class_is_among_the_first():
    logits = torch.tensor([[4.0, 2.0, 0.0]], requires_grad=True)
    second = torch.tensor([1])
    assert float(soft_top_k_loss(logits, second, 2).detach()) == 0
    loss = soft_top_k_loss(logits, second, 1)
    assert float(loss.detach()) == 1
    soft = soft_top_k_loss(logits, second, 1, strength=4.0)
    (gradient,) = torch.autograd.grad(soft, logits)
    assert gradient[0, 1] < 0 < gradient[0, 0]


# --- as a scorer


def classes(seed):
    random = np.random.default_rng(seed)
    centres = 3 * random.normal(size=(3, 20))
    return {f"kind {i}": centre + random.normal(size=(12, 20)) for i, centre in enumerate(centres)}, centres


def test_scores_are_distances_from_the_subspace_in_loops():
    _, vectors = bent_bank(1)
    scorer = SoftRank(SoftRankParams(components=3)).fit(bank_of(vectors), seed=0)
    expected = []
    for row in vectors.astype(np.float32).astype(np.float64):
        left = row - scorer.directions.mean
        for component in scorer.directions.components:
            left = left - float(left @ component) * component
        expected.append(np.sqrt(sum(x * x for x in left)))
    scores = scorer.score(inputs_of(vectors)).image
    assert scores == pytest.approx(expected, rel=1e-5)
    assert scores[180:].min() > scores[:180].max()


def test_a_head_ranks_the_true_class_first():
    _, vectors = bent_bank(2)
    labels, centres = classes(2)
    seen = []
    scorer = SoftRank(SoftRankParams()).fit(
        bank_of(vectors, labels=labels), seed=0, progress=lambda *at: seen.append(at)
    )
    new = centres[:, None] + np.random.default_rng(3).normal(size=(3, 20, 20))
    probabilities = scorer.score(inputs_of(new.reshape(-1, 20))).probabilities
    table = np.stack([probabilities[f"kind {i}"] for i in range(3)], axis=1)
    assert table.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (table.argmax(axis=1) == np.repeat(range(3), 20)).mean() > 0.9
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)
    # Negative control: names dealt to the wrong rows are learnt as well, and wrong.
    turned = dict(zip(labels, [*list(labels.values())[1:], labels["kind 0"]], strict=True))
    wrong = SoftRank(SoftRankParams()).fit(bank_of(vectors, labels=turned), seed=0)
    table = np.stack(list(wrong.score(inputs_of(new.reshape(-1, 20))).probabilities.values()), axis=1)
    assert (table.argmax(axis=1) == np.repeat(range(3), 20)).mean() < 0.1


def test_scores_hold_alone_in_any_order_and_after_storage():
    _, vectors = bent_bank(3)
    method = SoftRank(SoftRankParams(regularisation="entropic"))
    for labels in (None, classes(1)[0]):
        scorer = method.fit(bank_of(vectors, labels=labels), seed=5)
        assert_scores_hold(method, scorer, inputs_of(vectors[::9] * 2))
        again = method.fit(bank_of(vectors, labels=labels), seed=5).export()
        assert all(again.arrays[name].tobytes() == array.tobytes() for name, array in scorer.export().arrays.items())
        restored = method.restore(scorer.export()).cleaned_bank()
        assert restored.dropped.tolist() == scorer.cleaned_bank().dropped.tolist()


def test_each_refusal_is_named():
    method = SoftRank(SoftRankParams())
    assert installed()["soft_rank"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="at least 10 normal images; got 9"):
        method.fit(bank_of(np.random.default_rng(0).normal(size=(9, 3))), seed=0)
    with pytest.raises(FitRefused, match="must hold images that differ; got 12 alike"):
        method.fit(bank_of(np.ones((12, 3))), seed=0)
    with pytest.raises(WidthMismatch):
        scorer = method.fit(bank_of(np.random.default_rng(0).normal(size=(10, 3))), seed=0)
        scorer.score(inputs_of(np.ones((1, 4))))
    with pytest.raises(ParameterInvalid, match="`strength` of a soft rank must be above 0; got 0"):
        soft_rank(values(0), 0)
    with pytest.raises(ParameterInvalid, match="must have at least one entry"):
        soft_sort(torch.zeros(2, 0), 1.0)
    with pytest.raises(ParameterInvalid, match="`trimmed_share` of method `soft_rank`"):
        SoftRankParams.parse("soft_rank", {"trimmed_share": 0.6})
