"""Convolutions of small maps: torch's numbers and gradients, wherever they are used."""

import pytest
import torch
import torch.nn.functional as functional

from models.pretraining.small_maps import SmallMapConv2d, with_small_maps
from models.pretraining.student import seeded_student
from models.torchvision_import import import_torchvision

SIZES = [(1, 1), (1, 3), (2, 2), (3, 2), (3, 3), (4, 4), (5, 7), (8, 8)]


def _is_by_taps(maps: torch.Tensor) -> bool:
    assert maps.grad_fn is not None
    return "ByTaps" in maps.grad_fn.name()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_small_maps_get_the_numbers_and_gradients_of_torch(size: tuple[int, int], stride: int) -> None:
    draw = torch.Generator().manual_seed(3)
    layer = SmallMapConv2d(5, 256, 3, stride, padding=1, bias=False)
    maps = torch.randn(3, 5, *size, generator=draw, requires_grad=True)

    out = layer(maps)
    expected = functional.conv2d(maps, layer.weight, stride=stride, padding=1)
    passed_back = torch.randn(expected.shape, generator=draw)
    gradients = torch.autograd.grad(out, (maps, layer.weight), passed_back)
    expected_gradients = torch.autograd.grad(expected, (maps, layer.weight), passed_back)

    assert _is_by_taps(out) == (expected.shape[2] * expected.shape[3] <= 16)
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    for gradient, same in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_small_differences() -> None:
    from_taps = SmallMapConv2d(3, 256, 3, 2, padding=1, bias=False)
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    out = from_taps(maps)
    assert _is_by_taps(out)
    out.square().sum().div(2).backward()
    weight = from_taps.weight
    assert weight.grad is not None
    for place in [(0, 0, 0, 0), (255, 2, 2, 2), (17, 1, 1, 0)]:
        with torch.no_grad():
            moved = weight.double()
            step = torch.zeros_like(moved)
            step[place] = 1e-4
            above, below = (
                functional.conv2d(maps.double(), moved + sign * step, stride=2, padding=1).square().sum() / 2
                for sign in (1, -1)
            )
        assert weight.grad[place].item() == pytest.approx((above - below).item() / 2e-4, rel=1e-3, abs=1e-3)


def test_only_what_is_asked_for_is_worked_out() -> None:
    layer = SmallMapConv2d(4, 256, 3, padding=1, bias=False)
    layer.weight.requires_grad_(False)
    maps = torch.randn(2, 4, 2, 2, requires_grad=True)
    layer(maps).sum().backward()
    assert maps.grad is not None and layer.weight.grad is None

    layer.weight.requires_grad_(True)
    layer(maps.detach()).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("channels", "size", "dtype"), [(64, 2, torch.float32), (256, 5, torch.float32), (256, 2, torch.float64)]
)
def test_other_maps_are_torchs_own(channels: int, size: int, dtype: torch.dtype) -> None:
    layer = SmallMapConv2d(4, channels, 3, padding=1, bias=False, dtype=dtype)
    assert not _is_by_taps(layer(torch.randn(2, 4, size, size, dtype=dtype)))


def test_bfloat16_is_torchs_own() -> None:
    layer = SmallMapConv2d(4, 256, 3, padding=1, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(2, 4, 2, 2))
    assert out.dtype == torch.bfloat16
    assert not _is_by_taps(out)


def test_convolutions_of_another_kind_are_left_as_they_are() -> None:
    body = torch.nn.Sequential(
        torch.nn.Conv2d(4, 256, 1, bias=False),
        torch.nn.Conv2d(4, 256, 3, bias=False),
        torch.nn.Conv2d(4, 256, 3, padding=1),
        torch.nn.Conv2d(4, 256, 3, padding=2, dilation=2, bias=False),
        torch.nn.Conv2d(4, 256, 3, padding=1, groups=2, bias=False),
        torch.nn.Conv2d(4, 256, 3, (1, 2), padding=1, bias=False),
        torch.nn.Conv2d(4, 256, 3, padding=1, padding_mode="reflect", bias=False),
    )
    assert not any(isinstance(layer, SmallMapConv2d) for layer in with_small_maps(body))


def test_a_seed_draws_the_network_that_it_drew_without_them() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        plain = import_torchvision().models.resnet18(weights=None, zero_init_residual=True)
        label = torch.nn.Linear(512, 7)
    student = seeded_student("resnet18", classes=7, logits=0, features=0, seed=11)

    assert torch.equal(student.label.weight, label.weight)
    drawn = student.body.state_dict()
    assert drawn.keys() == {name for name in plain.state_dict() if not name.startswith("fc.")}
    assert all(torch.equal(drawn[name], plain.state_dict()[name]) for name in drawn)


def test_a_network_learns_what_it_learnt_without_them() -> None:
    student = seeded_student("resnet18", classes=7, logits=0, features=0, seed=5)
    plain = import_torchvision().models.resnet18(weights=None)
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(student.body.state_dict())
    assert sum(isinstance(layer, SmallMapConv2d) for layer in student.body.modules()) == 16
    views = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(6))
    for network in (student.body, plain):
        network.train()
        network(views).square().mean().backward()

    expected = dict(plain.named_parameters())
    for name, parameter in student.body.named_parameters():
        assert parameter.grad is not None
        gradient, same = parameter.grad, expected[name].grad
        assert same is not None
        assert (gradient - same).norm() <= 1e-3 * same.norm() + 1e-7, name
