"""gm_dgm: its bound is one, exact under the exact posterior, and a Gaussian per kind finds kinds without labels."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from index.errors import WidthMismatch
from models.catalog import installed
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.gm_dgm import GmDgm, GmDgmParams
from models.methods.gm_dgm.method import BANK_MIN, Material, train_model
from models.methods.gm_dgm.network import GenerativeModel, bound, joint_bounds
from models.training import part_of, seeded
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of

QUICK = {
    "epochs": 15,
    "hidden": 16,
    "latents": 2,
    "normal_kinds": 2,
    "extra_kinds": 2,
    "draws": 2,
    "learning_rate": 0.01,
}
SIGNS = torch.tensor([-1.0, 1.0], dtype=torch.float64)  # mean 0, variance 1: exact for quadratic functions of z


def collection(seed, n=64, without=()):
    """A bank of two kinds, classes `a` and `b`, and a pool of the bank's, of `a`, and of a kind of its own."""
    random = np.random.default_rng(seed)
    centres = 4 * random.normal(size=(5, 6))

    def of(kinds):
        return (centres[kinds] + random.normal(size=(len(kinds), 6))).astype(np.float32)

    labels = {"b": of(np.full(5, 3)), "a": of(np.full(5, 2))} if "labels" not in without else {}
    pool = of(np.arange(60) % 5) if "unlabelled" not in without else np.zeros((0, 6), np.float32)
    bank = bank_of(of(np.arange(n) % 2), labels=labels)
    reference = Reference(
        bank=bank.bank,
        keys=bank.keys,
        labels=bank.labels,
        unlabelled=[Inputs(ids=5000 + np.arange(len(pool)), vectors=pool)],
    )
    return centres, reference


@pytest.fixture(scope="module")
def fitted():
    centres, reference = collection(0)
    method = GmDgm(GmDgmParams(**QUICK))
    return method, method.fit(reference, seed=1), centres, reference


# --- the bound, in one dimension


def log_normal(x, mean, log_variance):
    return -0.5 * ((x - mean) ** 2 / np.exp(log_variance) + log_variance + math.log(2 * math.pi))


def test_the_bound_stays_below_log_p_by_quadrature():
    net = GenerativeModel(width=1, hidden=4, latents=1, kinds=3, mixture=True, generator=seeded(3)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    net.requires_grad_(False)
    z = np.linspace(-15, 15, 6001)
    decoded = net.decode(torch.from_numpy(np.repeat(z[:, None, None], 3, axis=1)))[..., 0].numpy()
    quantiles = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    for x in (-1.5, 0.2, 2.0):
        density = 0.0
        for kind in range(3):
            mean, spread = float(net.prior_mean[kind, 0]), float(net.prior_log_variance[kind, 0])
            inside = np.exp(log_normal(z, mean, spread) + log_normal(x, decoded[:, kind], float(net.log_variance)))
            density += inside.sum() * (z[1] - z[0]) / 3
        row = torch.tensor([[x]], dtype=torch.float64)
        joint = net.joint(row, quantiles[:, None, None, None].expand(-1, 1, 3, 1))
        every = torch.ones(1, 3, dtype=torch.bool)
        found = float(bound(joint, net.log_shares(row), every)[0])
        assert found < math.log(density) - 1e-3
        # The best q(y | x) gives no more than log p either, and no less than the one that the network has.
        assert found <= float(bound(joint, joint.log_softmax(1), every)[0]) < math.log(density)


def test_the_bound_is_log_p_under_the_exact_posterior():
    slope, shift, log_variance = 1.7, -0.4, math.log(0.3)
    prior_mean, prior_spread = np.array([-2.0, 0.5, 1.0]), np.log([0.5, 1.0, 2.0])
    x = np.array([-3.0, 0.1, 2.5])
    # Bayes' rule for a linear decoder and Gaussian z.
    precision = np.exp(-prior_spread) + slope**2 / math.exp(log_variance)
    mean = (prior_mean * np.exp(-prior_spread) + slope * (x[:, None] - shift) / math.exp(log_variance)) / precision
    marginal = np.log(slope**2 * np.exp(prior_spread) + math.exp(log_variance))
    log_joint = log_normal(x[:, None], slope * prior_mean + shift, marginal) - math.log(3)

    spread = torch.from_numpy(-np.log(precision)).expand(3, 3)[..., None]
    prior = (torch.from_numpy(prior_mean[:, None]), torch.from_numpy(prior_spread[:, None]))

    def joint(posterior_mean, prior=prior):
        return joint_bounds(
            torch.from_numpy(x[:, None]),
            (torch.from_numpy(posterior_mean[..., None]), spread),
            prior,
            lambda z: slope * z + shift,
            torch.tensor(log_variance, dtype=torch.float64),
            SIGNS[:, None, None, None].expand(-1, 3, 3, 1),
        )

    assert joint(mean).numpy() == pytest.approx(log_joint, abs=1e-9)
    every = torch.ones(3, 3, dtype=torch.bool)
    exact = torch.from_numpy(log_joint)
    log_p = np.log(np.exp(log_joint).sum(axis=1))
    assert bound(joint(mean), exact.log_softmax(1), every)[0].numpy() == pytest.approx(log_p, abs=1e-9)
    # One kind allowed: a labelled image; two: one whose label leaves them open.
    one, two = every.clone(), every.clone()
    one[:, 1:], two[:, 2] = False, False
    assert bound(joint(mean), exact, one)[0].numpy() == pytest.approx(log_joint[:, 0], abs=1e-9)
    two_of = np.log(np.exp(log_joint[:, :2]).sum(axis=1))
    assert bound(joint(mean), exact, two)[0].numpy() == pytest.approx(two_of, abs=1e-9)
    # Negative control: with a divergence of 0, from the posterior to itself, it is no bound.
    assert (joint(mean, (torch.from_numpy(mean[..., None]), spread)).numpy() > log_joint + 0.01).all()
    # Negative controls: another q(z | x, y), or another q(y | x), stays below.
    assert (bound(joint(mean + 0.5), exact.log_softmax(1), every)[0].numpy() < log_p - 0.1).all()
    assert (bound(joint(mean), torch.full((3, 3), -math.log(3.0)).double(), every)[0].numpy() < log_p - 0.05).all()


# --- the mechanism


def found_kinds(seed, latent):
    """Hungarian accuracy on two kinds of four that no label names."""
    random = np.random.default_rng(seed)
    centres, kind = 3 * random.normal(size=(4, 6)), np.arange(400) % 4

    def drawn():
        return (centres[kind] + random.normal(size=(400, 6))).astype(np.float32)

    allowed, weights = np.ones((400, 6), bool), np.zeros(400)
    labelled = np.flatnonzero(kind < 2)[:20]
    allowed[labelled] = np.arange(6) == kind[labelled, None]
    weights[labelled] = 0.1 * 400 / 20
    params = GmDgmParams(latent=latent, latents=2, hidden=32, epochs=8, learning_rate=0.02)
    generator = seeded(seed)
    net = GenerativeModel(width=6, hidden=32, latents=2, kinds=6, mixture=latent == "mixture", generator=generator)
    material = Material(drawn(), allowed, weights, np.arange(400) % 10 == 0)
    train_model(net, material, params, generator, part_of(None, 0.0, 1.0))
    with torch.no_grad():
        told = net.log_shares(net.standardised(torch.from_numpy(drawn()))).argmax(dim=1).numpy()
    counts = np.array([[np.sum((told == one) & (kind == other)) for other in (2, 3)] for one in range(6)])
    return counts[linear_sum_assignment(-counts)].sum() / np.sum(kind >= 2)


def test_kinds_without_labels_are_told_apart_better_than_by_one_gaussian():
    means = {latent: np.mean([found_kinds(seed, latent) for seed in range(5)]) for latent in ("mixture", "single")}
    # The second is the negative control: model M2 with the same networks.
    assert means["mixture"] > means["single"] + 0.05
    assert means["mixture"] > 0.75


# --- as a scorer


def test_strangers_and_registered_defects_score_higher_than_normal_images(fitted):
    _, scorer, centres, reference = fitted
    random = np.random.default_rng(7)

    def of(kind):
        return inputs_of(centres[kind] + random.normal(size=(40, 6)))

    normal = np.concatenate([scorer.score(of(kind)).image for kind in (0, 1)])
    for kind in (2, 3, 4):
        assert np.median(scorer.score(of(kind)).image) > np.quantile(normal, 0.9)
    assert np.median(scorer.score(inputs_of(20 * random.normal(size=(40, 6)))).image) > normal.max()
    found = scorer.score(of(2))
    assert scorer.kinds == ("(normal 1)", "(normal 2)", "a", "b", "(kind 1)", "(kind 2)")
    assert found.tags["cluster"].count("a") > 25
    # Negative control: with every kind's evidence a registered defect is as likely as anything.
    every = GmDgm(GmDgmParams(**QUICK, evidence="all")).fit(reference, seed=1)
    assert np.median(every.score(of(2)).image) < np.median(found.image) - 5


def test_the_score_is_the_bound_over_normal_kinds(fitted):
    _, scorer, centres, _ = fitted
    found = scorer.score(inputs_of(centres))
    for row in range(5):
        shares = [float(found.probabilities[name][row]) for name in scorer.kinds[:2]]
        total = 0.0
        for share, joint in zip(shares, found.terms["bounds"][row, :2].tolist(), strict=True):
            q = share / sum(shares)
            total += q * (joint - math.log(q)) if q > 0 else 0.0
        assert float(found.image[row]) == pytest.approx(-total, rel=1e-4, abs=1e-3)


def test_scores_hold_alone_in_any_order_and_after_storage(fitted):
    method, scorer, centres, _ = fitted
    assert_scores_hold(method, scorer, inputs_of(np.vstack([centres, 3 * centres, np.full((1, 6), 1e17)])))
    assert scorer.score(inputs_of(np.zeros((0, 6)))).image.shape == (0,)


def test_one_seed_one_scorer_and_global_chance_is_left_alone():
    _, reference = collection(2)
    method = GmDgm(GmDgmParams(**(QUICK | {"epochs": 2})))
    before, seen = torch.random.get_rng_state(), []
    one = method.fit(reference, seed=1, progress=lambda *at: seen.append(at)).export()
    two, other = method.fit(reference, seed=1).export(), method.fit(reference, seed=2).export()
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in one.arrays)
    assert any(one.arrays[name].tobytes() != other.arrays[name].tobytes() for name in one.arrays)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)


def test_the_steps_of_a_fit_are_bounded_however_many_passes_are_allowed():
    reference = collection(2)[1]

    def steps(most):
        seen = []
        params = GmDgmParams(**(QUICK | {"epochs": 1000, "steps": most, "learning_rate": 1e-6}))
        GmDgm(params).fit(reference, seed=1, progress=lambda *at: seen.append(at))
        return len(seen) - 1  # told once more at the end

    assert steps(20) <= 20 < steps(60) <= 60


def test_each_refusal_is_named(fitted):
    method, scorer, _, _ = fitted
    assert installed()["gm_dgm"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="at least 16 normal images; got 15"):
        method.fit(collection(0, n=15)[1], seed=0)
    with pytest.raises(FitRefused, match="got 0 examples and 60 unlabelled"):
        method.fit(collection(0, without=("labels",))[1], seed=0)
    with pytest.raises(FitRefused, match="got 10 examples and 0 unlabelled"):
        method.fit(collection(0, without=("unlabelled",))[1], seed=0)
    alike = collection(0)[1]
    same = Reference(
        bank=bank_of(np.ones((20, 6))).bank,
        keys=bank_of(np.ones((20, 6))).keys,
        labels=alike.labels,
        unlabelled=alike.unlabelled,
    )
    with pytest.raises(FitRefused, match="must hold images that differ; got 20 alike"):
        method.fit(same, seed=0)
    with pytest.raises(WidthMismatch):
        scorer.score(inputs_of(np.ones((1, 9))))
    with pytest.raises(ParameterInvalid, match="`latents` of method `gm_dgm`"):
        GmDgmParams.parse("gm_dgm", {"latents": 0})
