"""posterior_network: flows are densities, the loss is the expected one, and far away nothing is known."""

import math

import numpy as np
import pytest
import torch

from index.errors import WidthMismatch
from models.catalog import installed
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.posterior_network import PosteriorNetwork, PosteriorNetworkParams
from models.methods.posterior_network.method import BANK_MIN
from models.methods.posterior_network.network import (
    PosteriorNet,
    RadialFlows,
    bayesian_loss,
    concentrations,
    expected_cross_entropy,
    warm_up_loss,
)
from models.training import mlp, seeded
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of

QUICK = {
    "pseudo_classes": 4,
    "hidden": 16,
    "latent": 4,
    "flow_layers": 4,
    "warm_up": 8,
    "epochs": 12,
    "learning_rate": 0.02,
}


def flows(width, seed, classes=3, layers=4):
    """Flows whose layers bend strongly, outwards and inwards."""
    net = RadialFlows(classes, width, layers, seeded(seed))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return net.requires_grad_(False)


def kinds(seed, n=160, width=8):
    random = np.random.default_rng(seed)
    centres = 4 * random.normal(size=(4, width))
    return centres, centres[np.arange(n) % 4] + random.normal(size=(n, width))


@pytest.fixture(scope="module")
def fitted():
    """A fit, with two classes registered: one new, one a shift of a normal kind."""
    centres, vectors = kinds(0)
    random = np.random.default_rng(1)
    labels = {"scratch": -1.5 * centres[0] + random.normal(size=(20, 8)), "b": centres[1] + random.normal(size=(20, 8))}
    method = PosteriorNetwork(PosteriorNetworkParams(**QUICK))
    return method, method.fit(bank_of(vectors, labels=labels), seed=3), centres, labels


# --- oracle


def by_loops(net, number, point):
    """The log density of one flow at one point, layer by layer, with the Jacobian by differences of a full matrix."""

    def moved(z):
        for centre, raw_a, raw_b in zip(net.centre[:, number], net.raw_a[:, number], net.raw_b[:, number], strict=True):
            a = math.log1p(math.exp(raw_a))
            b = math.log1p(math.exp(raw_b)) - a
            distance = math.sqrt(sum((x - c) ** 2 for x, c in zip(z, centre.tolist(), strict=True)))
            z = [x + b * (x - c) / (a + distance) for x, c in zip(z, centre.tolist(), strict=True)]
        return np.array(z)

    step = 1e-6
    jacobian = [(moved(point + step * e) - moved(point - step * e)) / (2 * step) for e in np.eye(len(point))]
    end = moved(point)
    return -0.5 * (end @ end + len(point) * math.log(2 * math.pi)) + np.linalg.slogdet(np.array(jacobian))[1]


def test_log_densities_equal_loops_with_a_numerical_jacobian():
    net, points = flows(3, 1), np.random.default_rng(0).normal(size=(4, 3))
    got = net.log_densities(torch.from_numpy(points))
    expected = [[by_loops(net, number, point) for number in range(3)] for point in points]
    assert got.numpy() == pytest.approx(np.array(expected), abs=1e-6)


# --- the mechanism


@pytest.mark.parametrize(("width", "per_side"), [(1, 20_001), (2, 501)])
def test_each_flow_integrates_to_one(width, per_side):
    net = flows(width, 2)
    axis = torch.linspace(-20, 20, per_side, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * width).reshape(-1, width)
    cell = float(axis[1] - axis[0]) ** width
    totals = net.log_densities(points).exp().sum(dim=0) * cell
    assert totals.numpy() == pytest.approx(1, abs=0.01)
    # Negative control: the normal of the layers' end without their Jacobian is no density.
    with torch.no_grad():
        plain = net.log_densities(points)
        jacobian = torch.stack([_log_jacobian(net, number, points) for number in range(3)], dim=1)
    assert (abs((plain - jacobian).exp().sum(dim=0) * cell - 1) > 0.05).all()


def _log_jacobian(net, number, z):
    total = torch.zeros(len(z), dtype=torch.float64)
    for centre, raw_a, raw_b in zip(net.centre[:, number], net.raw_a[:, number], net.raw_b[:, number], strict=True):
        a = torch.nn.functional.softplus(raw_a)
        b = torch.nn.functional.softplus(raw_b) - a
        distance = (z - centre).norm(dim=1)
        h = 1 / (a + distance)
        total += (z.shape[1] - 1) * torch.log1p(b * h) + torch.log1p(b * h - b * distance * h**2)
        z = z + (b * h)[:, None] * (z - centre)
    return total


def test_the_closed_loss_is_the_expected_cross_entropy():
    alpha = np.array([[1.0, 1.0, 1.0], [4.0, 1.5, 9.0], [30.0, 2.0, 1.0]])
    random = np.random.default_rng(0)
    for row, target in zip(alpha, (0, 1, 2), strict=True):
        drawn = np.log(random.dirichlet(row, 200_000)[:, target])
        closed = float(expected_cross_entropy(torch.from_numpy(row[None]), torch.tensor([target])))
        assert closed == pytest.approx(-drawn.mean(), abs=5 * drawn.std() / math.sqrt(200_000))
        # Negative control: the cross-entropy of the mean probabilities is another number.
        assert abs(math.log(row.sum() / row[target]) + drawn.mean()) > 20 * drawn.std() / math.sqrt(200_000)


def test_far_away_nothing_is_known():
    net, far = flows(4, 3, classes=5), 1e3 * torch.randn(20, 4, generator=seeded(0), dtype=torch.float64)
    alpha = concentrations(math.log(1000) + net.log_densities(far))
    assert alpha.sum(dim=1).numpy() == pytest.approx(5)
    assert (alpha / alpha.sum(dim=1, keepdim=True)).numpy() == pytest.approx(1 / 5)
    near = concentrations(math.log(1000) + net.log_densities(far / 1e3))
    assert (near.sum(dim=1) > 6).any()
    # Negative control: a softmax head on the same latents is sure of itself out there.
    head = mlp([4, 5], seeded(1)).double().requires_grad_(False)
    assert float(torch.softmax(head(far), dim=1).amax(dim=1).median()) > 0.99


def gradient_norm(classes):
    net = PosteriorNet(width=6, hidden=8, latent=2, layers=3, counts=[50] * classes, generator=seeded(0))
    vectors = torch.randn(32, 6, generator=seeded(1), dtype=torch.float64)
    bayesian_loss(concentrations(net.log_evidence(vectors)), torch.arange(32) % classes, 1e-5).backward()
    return sum(float(parameter.grad.square().sum()) for parameter in net.parameters())


def test_one_class_alone_teaches_nothing_so_the_bank_is_cut_into_several():
    assert gradient_norm(1) == 0
    assert gradient_norm(2) > 1e-6  # negative control
    _, vectors = kinds(2, n=64)
    scorer = PosteriorNetwork(PosteriorNetworkParams(**(QUICK | {"epochs": 1, "warm_up": 0}))).fit(
        bank_of(vectors), seed=0
    )
    assert scorer.bank_classes == 4
    assert sum(scorer.counts) == 54


def test_the_warm_up_reaches_a_class_without_density():
    net = PosteriorNet(width=3, hidden=8, latent=2, layers=3, counts=[50, 50], generator=seeded(0)).eval()
    vectors = 1e4 * torch.randn(16, 3, generator=seeded(1), dtype=torch.float64)
    targets = torch.arange(16) % 2
    slopes = []
    for loss in (
        warm_up_loss(net, vectors, targets),
        bayesian_loss(concentrations(net.log_evidence(vectors)), targets, 0),
    ):
        gradients = torch.autograd.grad(loss, list(net.flows.parameters()))
        slopes.append(max(float(gradient.abs().max()) for gradient in gradients))
    assert slopes[0] > 1
    assert slopes[1] == 0  # negative control: the Bayesian loss alone


# --- as a scorer


def test_far_off_images_have_less_evidence_and_equal_probabilities(fitted):
    _, scorer, centres, _ = fitted
    random = np.random.default_rng(5)
    normal = scorer.score(inputs_of(centres[np.arange(60) % 4] + random.normal(size=(60, 8))))
    strange = scorer.score(inputs_of(60 * random.normal(size=(60, 8))))
    assert np.median(strange.image) > np.quantile(normal.image, 0.95)
    assert np.median(strange.terms["epistemic"]) > 0.9 > np.median(normal.terms["epistemic"])
    for scores in (normal, strange):
        assert sum(scores.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_the_score_is_the_log_of_the_bank_s_evidence(fitted):
    _, scorer, centres, labels = fitted
    scores = scorer.score(inputs_of(np.vstack([centres, labels["scratch"]])))
    assert scorer.labels == ("b", "scratch")
    assert scorer.counts[-2:] == (20, 20)
    evidence = scores.terms["log_evidence"].astype(np.float64)
    bank = np.log(np.exp(evidence[:, : scorer.bank_classes]).sum(axis=1))
    assert scores.image == pytest.approx(-bank, rel=1e-4, abs=1e-4)
    alpha = 1 + np.exp(evidence)
    assert scores.probabilities["scratch"] == pytest.approx(alpha[:, -1] / alpha.sum(axis=1), rel=1e-4)
    # A registered defect is known and still anomalous; negative control: with all evidence it no longer is.
    assert np.mean(scores.probabilities["scratch"][4:]) > 0.6
    assert np.median(scores.image[4:]) > scores.image[:4].max()
    everything = -np.log(np.exp(evidence).sum(axis=1))
    assert np.median(everything[4:]) < np.median(scores.image[4:]) - 1


def test_scores_hold_alone_in_any_order_and_after_storage(fitted):
    method, scorer, centres, _ = fitted
    vectors = np.vstack([centres, 3 * centres, np.full((1, 8), 1e17)])
    assert_scores_hold(method, scorer, inputs_of(vectors))
    assert scorer.score(inputs_of(np.zeros((0, 8)))).image.shape == (0,)


def test_one_seed_one_scorer_and_global_chance_is_left_alone():
    _, vectors = kinds(4, n=48)
    method = PosteriorNetwork(PosteriorNetworkParams(**(QUICK | {"epochs": 2, "warm_up": 1})))
    before, seen = torch.random.get_rng_state(), []
    one = method.fit(bank_of(vectors), seed=1, progress=lambda *at: seen.append(at)).export()
    two = method.fit(bank_of(vectors), seed=1).export()
    other = method.fit(bank_of(vectors), seed=2).export()
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in one.arrays)
    assert any(one.arrays[name].tobytes() != other.arrays[name].tobytes() for name in one.arrays)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)


def test_each_refusal_is_named(fitted):
    method, scorer, _, _ = fitted
    assert installed()["posterior_network"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="at least 32 normal images; got 31"):
        method.fit(bank_of(kinds(0, n=31)[1]), seed=0)
    with pytest.raises(FitRefused, match="must fall into at least two clusters; got 1 different"):
        method.fit(bank_of(np.ones((40, 3))), seed=0)
    with pytest.raises(WidthMismatch):
        scorer.score(inputs_of(np.ones((1, 9))))
    with pytest.raises(ParameterInvalid, match="`latent` of method `posterior_network`"):
        PosteriorNetworkParams.parse("posterior_network", {"latent": 1})
