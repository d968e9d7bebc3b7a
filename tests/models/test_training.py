"""training.py: it learns, stops, repeats itself, and leaves global chance alone."""

import pytest
import torch
from torch import nn

from models.errors import ParameterInvalid
from models.training import TrainingPlan, each_alone, linear, mlp, part_of, seeded, train

PLAN = TrainingPlan(epochs=40, batch=32, learning_rate=0.03)


def data(n=128):
    inputs = torch.randn(n, 3, generator=seeded(1))
    return inputs, inputs @ torch.tensor([[1.0], [-2.0], [0.5]])


def fitted(seed=0, plan=PLAN, **more):
    inputs, targets = data()
    net = mlp([3, 1], seeded(seed))
    report = train(
        net,
        lambda rows: nn.functional.mse_loss(net(inputs[rows]), targets[rows]),
        rows=len(inputs),
        plan=plan,
        generator=seeded(seed),
        method="x",
        **more,
    )
    return net, report


def test_a_line_is_learnt_and_the_same_seed_learns_the_same():
    net, report = fitted()
    assert report.losses[-1] < 1e-3 < report.losses[0]
    assert net[0].weight.tolist()[0] == pytest.approx([1, -2, 0.5], abs=0.05)
    assert torch.equal(net[0].weight, fitted()[0][0].weight)
    assert not torch.equal(net[0].weight, fitted(seed=1)[0][0].weight)


def test_global_chance_is_left_alone():
    before = torch.random.get_rng_state()
    fitted()
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_best_epoch_is_kept_and_the_rest_not_waited_for():
    values = iter([3.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    kept = []
    net = mlp([3, 1], seeded(0))
    inputs, targets = data()

    def held_out():
        kept.append(net[0].weight.clone())
        return torch.tensor(next(values))

    plan = TrainingPlan(epochs=8, batch=64, learning_rate=0.01, patience=3)
    report = train(
        net,
        lambda rows: nn.functional.mse_loss(net(inputs[rows]), targets[rows]),
        rows=128,
        plan=plan,
        generator=seeded(0),
        method="x",
        held_out_loss=held_out,
    )
    assert (report.epochs, report.best_epoch) == (6, 3)
    assert torch.equal(net[0].weight, kept[2])
    assert not net.training


def test_weights_decide_what_is_drawn():
    seen = []
    net = mlp([3, 1], seeded(0))

    def loss(rows):
        seen.extend(rows.tolist())
        return net(torch.zeros(len(rows), 3)).square().mean()

    weights = torch.zeros(50)
    weights[[3, 7]] = torch.tensor([1.0, 3.0])
    train(
        net,
        loss,
        rows=50,
        plan=TrainingPlan(epochs=8, batch=10, learning_rate=0.01),
        generator=seeded(0),
        method="x",
        sampling_weights=lambda: weights,
    )
    assert set(seen) == {3, 7}
    assert 0.68 < seen.count(7) / len(seen) < 0.82  # 400 draws: standard error 0.022


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_hook_sees_the_gradients_before_the_step(optimiser):
    def stop(parameters):
        for parameter in parameters:
            parameter.grad.zero_()

    plan = TrainingPlan(epochs=2, batch=32, learning_rate=0.03, optimiser=optimiser)
    frozen, _ = fitted(plan=plan, before_step=stop)
    assert torch.equal(frozen[0].weight, mlp([3, 1], seeded(0))[0].weight)
    assert not torch.equal(fitted(plan=plan)[0][0].weight, frozen[0].weight)  # negative control


def test_long_gradients_are_cut():
    plan = TrainingPlan(epochs=1, batch=128, learning_rate=1.0, optimiser="sgd", gradient_norm_max=1e-3)
    net, _ = fitted(plan=plan)
    start = mlp([3, 1], seeded(0))
    moved = torch.cat([(a - b).flatten() for a, b in zip(net.parameters(), start.parameters(), strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-2)


def test_progress_counts_up_and_cancels():
    seen = []
    fitted(progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen[:-1]] == list(range(1, 161))
    assert seen[-1] == (160, 160)

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        fitted(progress=cancel)


def test_a_loss_that_is_not_finite_names_the_learning_rate():
    plan = TrainingPlan(epochs=200, batch=128, learning_rate=1e6, optimiser="sgd")
    with pytest.raises(ParameterInvalid, match="`learning_rate` of method `x` must be small enough"):
        fitted(plan=plan)


def test_layers_start_as_torch_s_do():
    layer, theirs = linear(400, 300, seeded(0)), nn.Linear(400, 300)
    assert float(layer.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.02)
    assert float(layer.bias.detach().abs().max()) <= 1 / 20
    assert [type(part).__name__ for part in mlp([2, 3, 4, 1], seeded(0))] == ["Linear", "ReLU"] * 2 + ["Linear"]


def test_each_alone_gives_the_same_bits_in_any_batch():
    net = mlp([37, 50, 3], seeded(0))
    rows = torch.randn(65, 37, generator=seeded(2))
    (together,) = each_alone(lambda row: (net(row),), rows)
    for start in (0, 1, 7):
        assert torch.equal(each_alone(lambda row: (net(row),), rows[start : start + 3])[0], together[start : start + 3])
    assert torch.allclose(together, net(rows), atol=1e-5)


def test_parts_of_the_progress_follow_each_other():
    seen = []
    for first, last in ((0, 0.25), (0.25, 1)):
        report = part_of(lambda *at: seen.append(at), first, last)
        report(1, 2)
        report(2, 2)
    assert seen == [(125, 1000), (250, 1000), (625, 1000), (1000, 1000)]
    part_of(None, 0, 1)(1, 1)
