"""db_vae: weights are the product over latents, rare images are drawn more often and raise fewer false alarms."""

import math

import numpy as np
import pytest
import torch

from index.errors import WidthMismatch
from models.catalog import installed
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.db_vae import Debiasing, DebiasingParams
from models.methods.db_vae.maths import (
    effective_sample_size,
    false_alarm_rates,
    histogram_entropy,
    latent_histograms,
    sampling_weights,
)
from models.methods.db_vae.method import BANK_MIN
from models.methods.db_vae.network import SAMPLE_MIN, VariationalAutoencoder, trained
from models.training import TrainingPlan, part_of, seeded
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of, keys_of

QUICK = {"latents": 2, "hidden": 16, "epochs": 6, "learning_rate": 0.02, "alpha": 1.0}


def planted(seed, n):
    """A wave, and a twentieth of the images elsewhere."""
    random = np.random.default_rng(seed)
    rare, u = np.arange(n) < n // 20, random.normal(size=n)
    vectors = np.zeros((n, 6))
    vectors[:, 0], vectors[:, 1] = u, np.sin(2 * u)
    vectors[rare, 0], vectors[rare, 1], vectors[rare, 2] = 4 + 0.3 * u[rare], 0, 2 * np.sin(3 * u[rare])
    return rare, (vectors + 0.1 * random.normal(size=vectors.shape)).astype(np.float32)


# --- by hand


LATENTS = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 4.0], [2.0, 4.0]])


def test_weights_on_paper():
    histograms = latent_histograms(LATENTS, 2)
    # Bins of width 1 and 2; standard deviations 2 * 0.4 and 4 * sqrt(0.24).
    unit = 4 * math.sqrt(0.24)
    assert histograms.densities == pytest.approx(np.array([[0.8 * 0.8, 0.2 * 0.8], [0.3 * unit, 0.2 * unit]]))
    densities = histograms.densities_at(LATENTS)
    factors = 1 / (densities + 0.125)
    expected = [factors[i, 0] * factors[i, 1] for i in range(5)]
    assert expected[3] == pytest.approx(1 / (0.64 + 0.125) / (0.2 * unit + 0.125))
    weights = sampling_weights(densities, 0.125)
    assert weights == pytest.approx(np.array(expected) / sum(expected))
    # Negative control: the largest factor over the latents is another rule.
    largest = factors.max(axis=1)
    assert weights != pytest.approx(largest / largest.sum(), rel=0.02)


def test_the_unit_of_a_latent_changes_no_weight():
    latents = np.random.default_rng(2).normal(size=(200, 3))
    weights = []
    for scale in (1.0, np.array([1.0, 1e-3, 50.0])):
        histograms = latent_histograms(latents * scale, 10)
        weights.append(sampling_weights(histograms.densities_at(latents * scale), 0.1))
    assert weights[1] == pytest.approx(weights[0])
    # Negative control: densities per unit, which let a latent that hardly moves decide.
    raw = np.stack([np.histogram(column, 10, density=True)[0] for column in (latents * [1.0, 1e-3, 50.0]).T])
    per_unit = np.take_along_axis(raw.T, histograms.bins(latents * [1.0, 1e-3, 50.0]), axis=0)
    assert sampling_weights(per_unit, 0.1) != pytest.approx(weights[0], rel=0.5)
    still = latent_histograms(np.ones((20, 1)), 10)
    assert sampling_weights(still.densities_at(np.ones((20, 1))), 0.1) == pytest.approx(1 / 20)


def test_sizes_and_rates_on_paper():
    assert effective_sample_size(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_sample_size(np.array([0.5, 0.5, 0, 0])) == pytest.approx(2)
    rates, sizes = false_alarm_rates(np.arange(20.0), np.repeat([0, 2], [18, 2]), 3, 0.05)
    assert (rates.tolist(), sizes.tolist()) == ([0, 0, 0.5], [18, 0, 2])
    histograms = latent_histograms(np.array([[0.0], [1.0], [1.0], [1.0]]), 2)
    assert histogram_entropy(np.array([[0.0], [1.0]]), np.array([0.5, 0.5]), histograms) == pytest.approx(math.log(2))
    outside = histograms.bins(np.array([[-9.0], [9.0]]))
    assert outside.tolist() == [[0], [1]]


# --- oracle


def test_terms_equal_the_bound_in_loops():
    net = VariationalAutoencoder(width=3, hidden=5, latents=2, generator=seeded(1)).requires_grad_(False)
    net.log_variance.fill_(0.3)
    rows = torch.randn(4, 3, generator=seeded(2), dtype=torch.float64)
    reconstruction, divergence = net.terms(rows)
    for number, row in enumerate(rows):
        mean, log_variance = (part[0].tolist() for part in net.encode(row[None]))
        decoded = net.decoder(torch.tensor([mean], dtype=torch.float64))[0].tolist()
        variance = math.exp(0.3)
        density = sum(
            -((x - y) ** 2) / (2 * variance) - math.log(math.sqrt(2 * math.pi * variance))
            for x, y in zip(row.tolist(), decoded, strict=True)
        )
        kl = sum((m * m + math.exp(v) - v - 1) / 2 for m, v in zip(mean, log_variance, strict=True))
        assert float(reconstruction[number]) == pytest.approx(-density)
        assert float(divergence[number]) == pytest.approx(kl)


# --- the mechanism


def test_a_huge_alpha_draws_all_alike():
    densities = latent_histograms(np.random.default_rng(0).normal(size=(500, 8)), 10).densities
    at = np.random.default_rng(1).choice(densities.ravel(), size=(500, 8))
    assert sampling_weights(at, 1e6) == pytest.approx(1 / 500, rel=1e-4)
    assert sampling_weights(at, 0.1) != pytest.approx(1 / 500, rel=0.5)  # negative control
    assert effective_sample_size(sampling_weights(at, 1e6)) == pytest.approx(500)


@pytest.fixture(scope="module")
def runs():
    """For each alpha and seed: share of the rare images in the drawing, its entropy, their share of false alarms."""
    found = {}
    for alpha in (1e6, 0.05):
        rows = []
        for seed in range(5):
            rare, bank = planted(seed, 300)
            net, _ = trained(
                bank,
                bank[:60],
                latents=2,
                hidden=16,
                bins=10,
                alpha=alpha,
                plan=TrainingPlan(epochs=15, batch=50, learning_rate=0.02, patience=100),
                generator=seeded(seed),
                method="db_vae",
                progress=part_of(None, 0, 1),
            )
            latents = net.encode(torch.from_numpy(bank).double())[0].numpy()
            histograms = latent_histograms(latents, 10)
            weights = sampling_weights(histograms.densities_at(latents), alpha)
            is_rare, new = planted(seed + 100, 2000)
            scores = torch.stack(net.terms(torch.from_numpy(new).double())).sum(dim=0).numpy()
            alarms, _ = false_alarm_rates(scores, is_rare.astype(np.int64), 2, 0.05)
            rows.append((weights[rare].sum(), histogram_entropy(latents, weights, histograms), alarms[1]))
        found[alpha] = np.mean(rows, axis=0)
    return found


def test_a_rare_kind_is_drawn_more_often_and_raises_fewer_false_alarms(runs):
    # The large alpha is the idea switched off: one in twenty drawn, and most of their images are alarms.
    share, entropy, alarms = runs[1e6]
    assert share == pytest.approx(0.05, abs=1e-3)
    assert runs[0.05][0] > share + 0.2
    assert runs[0.05][1] > entropy + 0.03
    assert runs[0.05][2] < alarms - 0.3


def test_entropy_and_rare_share_rise_as_alpha_falls():
    random = np.random.default_rng(3)
    latents = np.vstack([random.normal(size=(380, 2)), [6, 0] + 0.4 * random.normal(size=(20, 2))])
    histograms = latent_histograms(latents, 10)
    drawn = [sampling_weights(histograms.densities_at(latents), alpha) for alpha in (1e6, 1.0, 0.1, 0.01)]
    entropies = [histogram_entropy(latents, weights, histograms) for weights in drawn]
    shares = [weights[380:].sum() for weights in drawn]
    sizes = [effective_sample_size(weights) for weights in drawn]
    assert entropies == sorted(entropies)
    assert entropies[-1] > entropies[0] + 0.2
    assert shares[:3] == sorted(shares[:3])
    assert shares[2] > 1.5 * shares[0]
    assert sizes == sorted(sizes, reverse=True)


# --- as a scorer


@pytest.fixture(scope="module")
def fitted():
    _, vectors = planted(0, 160)
    method, seen = Debiasing(DebiasingParams(**QUICK)), []
    before = torch.random.get_rng_state()
    scorer = method.fit(bank_of(vectors), seed=4, progress=lambda *at: seen.append(at))
    assert torch.equal(before, torch.random.get_rng_state())
    return method, scorer, vectors, seen


def test_terms_sum_to_the_score_and_rarity_says_how_often(fitted):
    _, scorer, vectors, _ = fitted
    scores = scorer.score(inputs_of(vectors))
    assert scores.terms["reconstruction"] + scores.terms["divergence"] == pytest.approx(scores.image, rel=1e-4)
    assert scorer.score(inputs_of(vectors * 5 + 3)).image.min() > np.median(scores.image)
    learnt = scorer.report["images"]
    assert learnt == 136
    # Over the images learnt from, being drawn so many times as often averages to once.
    assert np.exp(scores.terms["rarity"]).mean() == pytest.approx(1, rel=0.1)


def test_the_report_tells_false_alarms_by_latent_group(fitted):
    _, scorer, _, seen = fitted
    report = scorer.findings()
    groups = report["false_alarms"]
    assert [(one["latent"], one["group"]) for one in groups] == [
        (latent, side) for latent in (1, 2) for side in ("low", "middle", "high")
    ]
    assert sum(one["images"] for one in groups) == 2 * 24
    assert all(0 <= one[name] <= 1 for one in groups for name in ("before", "after"))
    assert report["entropy_after"] > report["entropy_before"]
    assert SAMPLE_MIN < report["effective_sample_size"] < 136
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)


def test_scores_hold_alone_in_any_order_and_after_storage(fitted):
    method, scorer, vectors, _ = fitted
    asked = np.vstack([vectors[:9], np.full((1, 6), 1e16)])
    assert_scores_hold(method, scorer, inputs_of(asked))
    assert method.restore(scorer.export()).report == scorer.report
    assert scorer.score(inputs_of(np.zeros((0, 6)))).image.shape == (0,)


def test_pixels_are_read_where_they_are_asked_for():
    random = np.random.default_rng(5)
    pixels = random.normal(size=(40, 3, 24, 30)).astype(np.float32)
    bank = Reference(bank=[Inputs(np.arange(40), pixels=pixels)], keys=keys_of(40))
    method = Debiasing(DebiasingParams(**(QUICK | {"source": "pixels", "epochs": 1, "compare": False})))
    scorer = method.fit(bank, seed=0)
    assert "false_alarms" not in scorer.report
    together = scorer.score(Inputs(np.arange(5), pixels=pixels[:5])).image
    alone = [scorer.score(Inputs(np.arange(1), pixels=pixels[i : i + 1])).image[0] for i in range(5)]
    assert together.tolist() == alone
    assert scorer.score(Inputs(np.arange(1), pixels=pixels[:1] + 3)).image[0] > together[0]
    with pytest.raises(ParameterInvalid, match="`pixels` of the inputs of method `db_vae` must be given"):
        scorer.score(inputs_of(np.zeros((1, 3))))


def test_each_refusal_is_named(fitted):
    method, scorer, vectors, _ = fitted
    assert installed()["db_vae"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="at least 32 normal images; got 31"):
        method.fit(bank_of(vectors[:31]), seed=0)
    with pytest.raises(FitRefused, match="must hold images that differ; got 40 alike"):
        method.fit(bank_of(np.ones((40, 3))), seed=0)
    steep = Debiasing(DebiasingParams(**(QUICK | {"alpha": 1e-6, "latents": 8})))
    with pytest.raises(FitRefused, match="`alpha` of method `db_vae` must be large enough that at least 20 images"):
        steep.fit(bank_of(vectors), seed=0)
    with pytest.raises(WidthMismatch):
        scorer.score(inputs_of(np.ones((1, 7))))
    with pytest.raises(ParameterInvalid, match="`vectors` of the inputs"):
        scorer.score(Inputs(np.arange(1)))
    with pytest.raises(ParameterInvalid, match="`alpha` of method `db_vae`"):
        DebiasingParams.parse("db_vae", {"alpha": 0})
