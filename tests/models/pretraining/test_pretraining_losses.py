"""The losses, by hand and by their laws."""

import math

import pytest
import torch

from models.pretraining.losses import (
    centralize_gradients,
    consistency_loss,
    feature_loss,
    soft_target_loss,
    worst_of,
)
from models.pretraining.schedule import StepBudget, TimeBudget, image_side, learning_rate


def test_soft_targets_by_hand() -> None:
    # Three quarters to one quarter from the teacher, one half each from the student.
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(by_hand, rel=1e-5)
    assert soft_target_loss(student, teacher * 2, 2.0).item() == pytest.approx(4 * by_hand, rel=1e-5)


def test_soft_targets_are_zero_only_for_equal_distributions() -> None:
    scores = torch.tensor([[1.0, -2.0, 0.5]])
    assert soft_target_loss(scores + 7, scores, 3.0).item() == pytest.approx(0, abs=1e-5)
    assert soft_target_loss(scores.flip(1), scores, 3.0).item() > 0.05


def test_the_squared_temperature_keeps_the_gradient_in_size() -> None:
    teacher = torch.randn(16, 10, generator=torch.Generator().manual_seed(0)) * 0.1

    def gradient(temperature: float, is_scaled: bool) -> float:
        scores = torch.zeros(16, 10, requires_grad=True)
        loss = soft_target_loss(scores, teacher, temperature).mean()
        (loss if is_scaled else loss / temperature**2).backward()
        assert scores.grad is not None
        return float(scores.grad.norm())

    assert gradient(10.0, True) == pytest.approx(gradient(1.0, True), rel=0.1)
    assert gradient(10.0, False) < 0.02 * gradient(1.0, False)  # what it would be without the factor


def test_feature_loss_by_hand() -> None:
    loss = feature_loss(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]]))
    assert loss.tolist() == [2.5, 8.0]


def test_views_are_held_to_the_sharpened_mean_by_hand() -> None:
    first, second = [0.9, 0.1], [0.5, 0.5]  # the mean is 0.7 to 0.3, sharpened by a half 49 to 9
    scores = torch.tensor([first, first, second, first]).log().requires_grad_()  # two copies of two images
    loss = consistency_loss(scores, 2, 0.5)
    guess = 49 / 58
    same = 81 / 82  # of an image whose views agree: held to what is surer than they are
    assert loss.tolist() == pytest.approx(
        [2 * (0.9 - guess) ** 2, 2 * (0.9 - same) ** 2, 2 * (0.5 - guess) ** 2, 2 * (0.9 - same) ** 2]
    )
    assert consistency_loss(scores, 2, 1.0).tolist()[1::2] == pytest.approx([0, 0])
    (gradient,) = torch.autograd.grad(loss[0], scores)
    assert gradient[0].any() and not gradient[1:].any()  # the guess is not moved


def test_the_worst_copy_of_each_image_counts() -> None:
    losses = torch.tensor([1.0, 5.0, 3.0, 2.0], requires_grad=True)  # two copies of two images
    worst = worst_of(losses, 2)
    worst.backward()
    assert worst.item() == 4.0
    assert losses.grad is not None and losses.grad.tolist() == [0.0, 0.5, 0.5, 0.0]
    assert worst_of(losses.detach(), 1).item() == 2.75  # one copy: the plain mean


def test_centralized_gradients_have_no_mean_and_linear_maps_keep_theirs() -> None:
    convolution = torch.nn.Parameter(torch.zeros(4, 3, 2, 2))
    linear = torch.nn.Parameter(torch.zeros(4, 3))
    bias = torch.nn.Parameter(torch.zeros(4))
    for parameter in (convolution, linear, bias):
        parameter.grad = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
    before = convolution.grad.clone()
    centralize_gradients([convolution, linear, bias])
    assert convolution.grad.mean(dim=(1, 2, 3)).abs().max() < 1e-6
    # Only a constant is taken from each channel.
    assert (before - convolution.grad).std(dim=(1, 2, 3)).max() < 1e-6
    assert linear.grad is not None and linear.grad.sum() == 66
    assert bias.grad is not None and bias.grad.sum() == 6


def test_the_learning_rate_rises_to_its_peak_and_ends_at_zero() -> None:
    rates = [learning_rate(step / 100, peak=0.2, warmup=0.1) for step in range(101)]
    assert rates.index(max(rates)) == 10 and max(rates) == pytest.approx(0.2)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] > 0 and rates[-1] == 0 and learning_rate(1.3, peak=0.2, warmup=0.1) == 0


def test_budgets_count_what_they_name() -> None:
    assert StepBudget(steps=8).progress(2, 1e9) == 0.25
    assert TimeBudget(seconds=8).progress(10**9, 2) == 0.25
    assert StepBudget(steps=8).progress(9, 0) == TimeBudget(seconds=8).progress(0, 9) == 1


def test_sides_follow_the_progress() -> None:
    assert [image_side(p, [(0.5, 16), (0.75, 24), (1.0, 32)]) for p in (0, 0.6, 0.8, 1)] == [16, 24, 32, 32]
