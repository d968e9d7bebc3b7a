"""ddpm: the process has the moments it should, the samplers invert it, and the network learns what is not Gaussian."""

import math

import numpy as np
import pytest
import torch

from index.errors import WidthMismatch
from models.catalog import installed
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.ddpm import Ddpm, DdpmParams
from models.methods.ddpm.diffusion import ancestral, ancestral_step, ddim, linear_schedule, noised
from models.methods.ddpm.method import BANK_MIN, levels_of
from models.training import seeded
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of, keys_of

QUICK = {"steps": 30, "hidden": 16, "levels": 3, "draws": 3, "timesteps": 200}
MODES = 4 * np.array([[math.cos(a), math.sin(a)] for a in np.arange(8) * math.pi / 4])


def ring(seed, n=800):
    random = np.random.default_rng(seed)
    return MODES[random.integers(8, size=n)] + 0.15 * random.normal(size=(n, 2))


def toy(seed, steps=600):
    """A fit to eight Gaussians on a ring."""
    params = DdpmParams(steps=steps, hidden=64, timesteps=100, learning_rate=4e-3, draws=16)
    return Ddpm(params).fit(bank_of(ring(seed)), seed=seed)


@pytest.fixture(scope="module")
def on_a_ring():
    return [toy(seed) for seed in (0, 1)], toy(0, steps=1)


@pytest.fixture(scope="module")
def fitted():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 3)) @ random.normal(size=(3, 6)) + 0.1 * random.normal(size=(60, 6))
    method = Ddpm(DdpmParams(**QUICK))
    return method, method.fit(bank_of(vectors), seed=3), vectors


# --- the process


def test_t_steps_at_once_have_the_mean_and_variance_of_t_single_ones():
    schedule = linear_schedule(1000)
    factor, variance, added = 1.0, 0.0, 0.0
    for t in range(1, 1001):
        beta = 1e-4 + (0.02 - 1e-4) * (t - 1) / 999
        factor, variance, added = factor * math.sqrt(1 - beta), (1 - beta) * variance + beta, added + beta
        if t in (1, 250, 1000):
            at = torch.tensor([t, t])
            moved = noised(torch.tensor([1.0, 0.0]).double(), at, torch.tensor([0.0, 1.0]).double(), schedule).tolist()
            assert moved == pytest.approx([factor, math.sqrt(variance)], rel=1e-9)
            # Negative control: noise added without shrinking what it is added to.
            assert t == 1 or abs(math.sqrt(added) - moved[1]) > 0.1
    assert factor < 0.01


def exact(mean, spread, schedule):
    """The expected noise in noisy draws of a one-dimensional Gaussian."""

    def predict(noisy, t):
        kept = schedule.kept[t][:, None]
        return (1 - kept).sqrt() * (noisy - kept.sqrt() * mean) / (kept * spread**2 + 1 - kept)

    return predict


def test_with_the_exact_noise_of_a_gaussian_the_sampler_returns_its_mean_and_variance():
    schedule = linear_schedule(1000)
    predict, n = exact(2.0, 0.7, schedule), 2000
    noise = torch.randn(n, 1, generator=seeded(0), dtype=torch.float64)
    drawn = ancestral(noise, 1000, predict, schedule, seeded(1))
    assert float(drawn.mean()) == pytest.approx(2, abs=4 * 0.7 / math.sqrt(n))
    assert float(drawn.std()) == pytest.approx(0.7, rel=0.06)
    # Negative control: with nothing drawn on the way the samples are too narrow.
    narrow = noise
    for t in range(1000, 0, -1):
        found = predict(narrow, torch.full((n,), t))
        narrow = ancestral_step(narrow, t, found, torch.zeros_like(narrow), schedule)
    assert float(narrow.std()) < 0.3


def test_ddim_draws_nothing_and_maps_noise_to_the_data_s_quantiles():
    schedule = linear_schedule(1000)
    predict = exact(2.0, 0.7, schedule)
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    path = list(range(1000, -1, -1))
    found = ddim(noise, path, predict, schedule)
    assert torch.equal(found, ddim(noise, path, predict, schedule))
    assert found.numpy() == pytest.approx(2 + 0.7 * noise.numpy(), abs=0.02)
    # Negative control: the ancestral sampler is another draw for every seed.
    draws = [ancestral(noise, 1000, predict, schedule, seeded(seed)) for seed in (0, 1)]
    assert float((draws[0] - draws[1]).abs().max()) > 0.1


# --- the network


def shares(scorer):
    """Share of samples that lie within 1 of each mode; neighbours are 3 apart."""
    noise = torch.randn(600, 2, generator=seeded(5), dtype=torch.float64)
    drawn = ancestral(noise, scorer.schedule.timesteps, scorer.net, scorer.schedule, seeded(6)).numpy()
    found = drawn @ scorer.seen_as.axes * scorer.seen_as.scale + scorer.seen_as.mean
    return (np.linalg.norm(found[:, None] - MODES, axis=2) < 1).mean(axis=0)


def test_eight_modes_are_learnt_and_drawn(on_a_ring):
    learnt, untrained = on_a_ring
    assert np.mean([shares(one).min() for one in learnt]) >= 0.05
    # Negative control: the Gaussian that training starts from.
    assert shares(untrained).min() < 0.05


def test_what_lies_between_the_modes_is_strange(on_a_ring):
    learnt, untrained = on_a_ring
    middle, normal = inputs_of(np.zeros((1, 2))), inputs_of(ring(9, n=60))
    for one in learnt:
        assert one.score(middle).image[0] > 1.2 * np.quantile(one.score(normal).image, 0.9)
    # Negative control: for one Gaussian nothing is more normal than the middle.
    assert untrained.score(middle).image[0] < np.quantile(untrained.score(normal).image, 0.1)


# --- as a scorer


def test_the_score_equals_loops(fitted):
    _, scorer, vectors = fitted
    at, kept = levels_of(scorer.params), scorer.schedule.kept
    assert at == sorted(at)
    assert at[-1] == 80
    row = (vectors[7].astype(np.float32).astype(np.float64) - scorer.seen_as.mean) / scorer.seen_as.scale
    turned = torch.tensor([sum(a * b for a, b in zip(axis, row, strict=True)) for axis in scorer.seen_as.axes])
    total = 0.0
    for weight, t in zip(scorer.weights, at, strict=True):
        squares = []
        for noise in scorer.noise:
            noisy = math.sqrt(kept[t]) * turned + math.sqrt(1 - kept[t]) * noise
            squares += (scorer.net(noisy[None], torch.tensor([t]))[0] - noise).square().tolist()
        total += weight * sum(squares) / len(squares)
    scores = scorer.score(inputs_of(vectors[7:8]))
    assert scores.image[0] == pytest.approx(total, rel=1e-6)
    assert scores.terms["errors"].shape == (1, 3)


@pytest.mark.parametrize(
    "more",
    [{}, {"scored_by": "reconstruction"}, {"scored_by": "reconstruction", "sampler": "ancestral", "strongest": 0.1}],
)
def test_scores_hold_alone_in_any_order_and_after_storage(fitted, more):
    vectors = fitted[2]
    method = Ddpm(DdpmParams(**{**QUICK, "steps": 25, **more}))
    scorer = method.fit(bank_of(vectors), seed=1)
    strange = vectors[:4] + np.array([0, 0, 0, 0, 0, 9.0])
    assert_scores_hold(method, scorer, inputs_of(np.vstack([vectors[:4], strange, np.full((1, 6), 1e17)])))
    assert scorer.score(inputs_of(strange)).image.min() > scorer.score(inputs_of(vectors)).image.mean()
    assert scorer.score(inputs_of(np.zeros((0, 6)))).image.shape == (0,)


def test_pixels_are_noised_as_images():
    random = np.random.default_rng(0)
    pixels = (random.normal(size=(20, 3, 1, 1)) + 0.1 * random.normal(size=(20, 3, 40, 40))).astype(np.float32)
    bank = Reference(bank=[Inputs(ids=np.arange(20), pixels=pixels)], keys=keys_of(20))
    method = Ddpm(DdpmParams(source="pixels", steps=4, channels=4, levels=2, draws=2, timesteps=100))
    scorer = method.fit(bank, seed=0)
    marked = pixels[:3].copy()
    marked[:, :, 10:30, 10:30] = 4
    plain, strange = (scorer.score(Inputs(ids=np.arange(3), pixels=one)).image for one in (pixels[:3], marked))
    assert strange.min() > plain.max()
    with pytest.raises(ParameterInvalid, match="`pixels` of the inputs"):
        scorer.score(Inputs(ids=np.arange(1)))


def test_one_seed_one_scorer_and_global_chance_is_left_alone(fitted):
    method, scorer, vectors = fitted
    before, seen = torch.random.get_rng_state(), []
    one = method.fit(bank_of(vectors), seed=3, progress=lambda *at: seen.append(at)).export()
    assert all(array.tobytes() == scorer.export().arrays[name].tobytes() for name, array in one.arrays.items())
    other = method.fit(bank_of(vectors[::-1]), seed=4).export()
    assert any(array.tobytes() != other.arrays[name].tobytes() for name, array in one.arrays.items())
    assert torch.equal(before, torch.random.get_rng_state())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)


def test_each_refusal_is_named(fitted):
    method, scorer, vectors = fitted
    assert installed()["ddpm"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="at least 16 normal images; got 15"):
        method.fit(bank_of(vectors[:15]), seed=0)
    with pytest.raises(FitRefused, match="must hold images that differ; got 20 alike"):
        method.fit(bank_of(np.ones((20, 3))), seed=0)
    with pytest.raises(WidthMismatch):
        scorer.score(inputs_of(np.ones((1, 9))))
    with pytest.raises(ParameterInvalid, match="`timesteps` of method `ddpm`"):
        DdpmParams.parse("ddpm", {"timesteps": 10})
