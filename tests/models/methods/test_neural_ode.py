"""neural_ode: the divergence is exact, linear flows give known Gaussians, and the adjoint gives the direct gradient."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import multivariate_normal

from index.errors import WidthMismatch
from models.catalog import installed
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.neural_ode import NeuralODE, NeuralODEParams
from models.methods.neural_ode.flow import (
    VelocityField,
    log_density_adaptive,
    log_density_fixed,
    log_normal,
    rk4,
    steps_needed,
)
from models.methods.neural_ode.method import BANK_MIN
from models.training import seeded
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of

QUICK = {"dimensions": 3, "hidden": 12, "epochs": 6, "learning_rate": 0.02}


def bending_field(seed, width=3, hidden=10):
    """A field with velocities of ordinary size, as training leaves it."""
    field = VelocityField(width=width, hidden=hidden, generator=seeded(seed))
    with torch.no_grad():
        field.last.weight.mul_(200)
        field.first.weight.mul_(2)
        field.second.weight.mul_(2)
    return field


def points(seed, n=6, width=3):
    return torch.randn(n, width, generator=seeded(seed), dtype=torch.float64)


def curved(seed, n=160):
    random = np.random.default_rng(seed)
    u = random.normal(size=(n, 2))
    return np.column_stack([u[:, 0], u[:, 0] ** 2 + 0.3 * u[:, 1], 0.2 * random.normal(size=(n, 4))])


class Linear(torch.nn.Module):
    """dz/dt = A z, whose divergence is the trace of A everywhere."""

    def __init__(self, matrix, trace=1.0):
        super().__init__()
        self.matrix, self.trace = torch.from_numpy(matrix), trace

    def forward(self, t, z):
        return z @ self.matrix.T, self.trace * torch.trace(self.matrix).expand(len(z))


MATRIX = np.array([[0.5, -1.0, 0.2], [0.3, -0.4, 0.0], [0.0, 0.6, 0.8]])


# --- oracle


@pytest.mark.parametrize("time", [0.0, 0.7])
def test_the_divergence_is_the_trace_of_the_jacobian(time):
    field, z = bending_field(1), points(2)
    t = torch.tensor(time, dtype=torch.float64)
    with torch.no_grad():
        velocity, divergence = field(t, z)
    for row, found in zip(z, divergence, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: field(t, x[None])[0][0], row)
        assert float(found) == pytest.approx(float(torch.trace(jacobian)), abs=1e-10)
    assert float(divergence.abs().max()) > 0.1
    assert not torch.allclose(velocity, field(t + 0.2, z)[0].detach())  # it does depend on time


# --- the mechanism


def test_a_linear_flow_gives_a_known_gaussian():
    # z(1) = e^A z(0) is standard normal, so z(0) is normal with covariance (e^A' e^A)^-1.
    moved = expm(MATRIX)
    z = points(3)
    expected = multivariate_normal(cov=np.linalg.inv(moved.T @ moved)).logpdf(z.numpy())
    fixed = log_density_fixed(Linear(MATRIX), z, 64)
    assert fixed.numpy() == pytest.approx(expected, abs=1e-6)
    assert log_density_adaptive(Linear(MATRIX), z, adjoint=False, relative=1e-9, absolute=1e-9).numpy() == (
        pytest.approx(expected, abs=1e-6)
    )
    # Negative control: without the divergence, the density of where a point ends is not its own.
    assert log_density_fixed(Linear(MATRIX, trace=0.0), z, 64).numpy() != pytest.approx(expected, abs=0.1)


def test_densities_of_a_bending_flow_integrate_to_one():
    axis = torch.linspace(-6, 6, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = log_density_fixed(bending_field(4, width=2), grid, 16).exp().sum() * (axis[1] - axis[0]) ** 2
        end, _ = rk4(bending_field(4, width=2), grid, 16)
        without = log_normal(end).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1, abs=5e-3)
    assert abs(float(without) - 1) > 0.05  # negative control: no divergence


def test_forward_then_backward_returns_the_input():
    field, z = bending_field(5), points(6)
    with torch.no_grad():
        there, gained = rk4(field, z, 128)
        back, lost = rk4(field, there, 128, backwards=True)
        # Negative control: one step is no solution of the equation.
        once, _ = rk4(field, rk4(field, z, 1)[0], 1, backwards=True)
    assert back.numpy() == pytest.approx(z.numpy(), abs=1e-6)
    assert (gained + lost).numpy() == pytest.approx(0, abs=1e-6)
    assert (there - z).abs().max() > 0.5
    assert once.numpy() != pytest.approx(z.numpy(), abs=1e-6)


def gradients(field, z, **how):
    density = log_density_adaptive(field, z, relative=1e-8, absolute=1e-8, **how)
    return [part.numpy() for part in torch.autograd.grad(-density.mean(), list(field.parameters()))]


def test_the_adjoint_gives_the_direct_gradient():
    field, z = bending_field(7), points(8)
    adjoint, direct = gradients(field, z, adjoint=True), gradients(field, z, adjoint=False)
    assert max(np.abs(part).max() for part in direct) > 0.1
    for one, other in zip(adjoint, direct, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    # Negative control: the gradient of two coarse steps is another one.
    coarse = torch.autograd.grad(-log_density_fixed(field, z, 1).mean(), list(field.parameters()))
    assert any(not np.allclose(one, other.numpy(), atol=1e-5) for one, other in zip(adjoint, coarse, strict=True))


def test_the_steps_are_the_fewest_that_match_the_adaptive_densities():
    field, z = bending_field(9), points(10, n=40)
    tried = []
    steps = steps_needed(field, z, tolerance=1e-4, most=512, reached=lambda: tried.append(1))
    assert steps == 2 ** len(tried)
    with torch.no_grad():
        wanted = log_density_adaptive(field, z, adjoint=False, relative=1e-10, absolute=1e-10)
        assert float((log_density_fixed(field, z, steps) - wanted).abs().max()) <= 1.1e-4
        assert float((log_density_fixed(field, z, steps // 2) - wanted).abs().max()) > 1e-4
    assert steps_needed(field, z, tolerance=1e-4, most=steps // 2, reached=lambda: None) is None


def test_an_image_scores_the_same_beside_an_outlier():
    field, z = bending_field(11), points(12, n=1)
    crowd = torch.cat([z, 50 * points(13, n=3)])
    with torch.no_grad():
        assert float(log_density_fixed(field, z, 16)[0]) == pytest.approx(
            float(log_density_fixed(field, crowd, 16)[0]), abs=1e-12
        )
        # Negative control: the adaptive solver's steps depend on the mates.
        alone, beside = (log_density_adaptive(field, rows, adjoint=False) for rows in (z, crowd))
    assert abs(float(alone[0] - beside[0])) > 1e-9


# --- as a scorer


@pytest.fixture(scope="module")
def fitted():
    method, seen = NeuralODE(NeuralODEParams(**QUICK)), []
    before = torch.random.get_rng_state()
    scorer = method.fit(bank_of(curved(0)), seed=1, progress=lambda *at: seen.append(at))
    assert torch.equal(before, torch.random.get_rng_state())
    return method, scorer, seen


def test_the_score_is_a_density_of_the_whole_vector(fitted):
    _, scorer, seen = fitted
    rows = curved(1, n=12).astype(np.float32)
    scores = scorer.score(inputs_of(rows))
    kept = scorer.directions
    expected = []
    for row in rows.astype(np.float64):
        z = kept.components @ (row - kept.mean) / np.sqrt(kept.variances)
        left = row - kept.mean - kept.components.T @ (kept.components @ (row - kept.mean))
        density = float(log_density_adaptive(scorer.field, torch.from_numpy(z[None]), adjoint=False)[0])
        gaussian = sum(
            -0.5 * math.log(2 * math.pi * scorer.rest_variance) for _ in range(6 - kept.variances.size)
        ) - float(left @ left) / (2 * scorer.rest_variance)
        expected.append(-density + 0.5 * math.log(np.prod(kept.variances)) - gaussian)
    assert scores.image == pytest.approx(expected, abs=0.01)
    assert scores.terms["flow"] + scores.terms["residual"] == pytest.approx(scores.image, abs=1e-4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)


def test_training_finds_more_density_than_standing_still(fitted):
    _, scorer, _ = fitted
    new = inputs_of(curved(2, n=200))
    still = NeuralODE(NeuralODEParams(**(QUICK | {"epochs": 1, "learning_rate": 1e-12}))).fit(
        bank_of(curved(0)), seed=1
    )
    assert scorer.score(new).image.mean() < still.score(new).image.mean() - 0.1
    assert scorer.score(inputs_of(curved(2, n=200) * 4)).image.mean() > scorer.score(new).image.mean() + 10


def test_scores_hold_alone_in_any_order_and_after_storage(fitted):
    method, scorer, _ = fitted
    asked = np.vstack([curved(3, n=8), np.full((1, 6), 1e16)])
    assert_scores_hold(method, scorer, inputs_of(asked))
    assert scorer.score(inputs_of(np.zeros((0, 6)))).image.shape == (0,)


def test_a_flow_of_every_feature_leaves_no_residual():
    random = np.random.default_rng(0)
    method = NeuralODE(NeuralODEParams(**(QUICK | {"epochs": 1})))
    scorer = method.fit(bank_of(random.normal(size=(40, 2))), seed=0)
    scores = scorer.score(inputs_of(random.normal(size=(5, 2))))
    assert scores.terms["residual"].tolist() == [0] * 5
    assert np.isfinite(scores.image).all()


def test_each_refusal_is_named(fitted):
    method, scorer, _ = fitted
    assert installed()["neural_ode"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="at least 32 normal images; got 31"):
        method.fit(bank_of(curved(0, n=31)), seed=0)
    with pytest.raises(FitRefused, match="must hold images that differ; got 40 alike"):
        method.fit(bank_of(np.ones((40, 3))), seed=0)
    with pytest.raises(WidthMismatch):
        scorer.score(inputs_of(np.ones((1, 7))))
    with pytest.raises(ParameterInvalid, match="`dimensions` of method `neural_ode`"):
        NeuralODEParams.parse("neural_ode", {"dimensions": 33})
