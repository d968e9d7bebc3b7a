"""Views: seeded, each part doing what it says, and nothing at all where all parts are off."""

import pytest
import torch
from torch import Tensor

from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.pretraining import NO_AUGMENTATION, Augmentation, augmented

MEAN = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255
STD = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255


def pixels(count: int = 64, side: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(40, 216, (count, side, side, 3), generator=generator).to(torch.uint8)


def levels(source: Tensor, seed: int = 0, side: int = 24, **parts: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    augmentation = NO_AUGMENTATION.model_copy(update=parts)
    return augmented(source, side, augmentation, generator) * STD + MEAN


def roughness(views: Tensor) -> Tensor:
    return (views[..., 1:] - views[..., :-1]).abs().mean(dim=(1, 2, 3))


def test_with_every_part_off_a_view_is_the_image() -> None:
    source = pixels()
    torch.testing.assert_close(levels(source), source.permute(0, 3, 1, 2).float(), atol=0.02, rtol=0)


def test_the_seed_decides_and_the_global_state_is_left_alone() -> None:
    everything = Augmentation(blur=0.5)
    before = torch.get_rng_state()
    first, again, other = (
        augmented(pixels(), 20, everything, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_packed_pixels_are_not_written_to() -> None:
    source = pixels()
    kept = source.clone()
    augmented(source, 24, Augmentation(blur=1, noise=1, coarse=1), torch.Generator().manual_seed(0))
    assert torch.equal(source, kept)


def test_flips_mirror_about_their_share() -> None:
    source = pixels(200)
    plain = source.permute(0, 3, 1, 2).float()
    views = levels(source, flip=0.5)
    mirrored = (views - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 0.1
    kept = (views - plain).abs().amax(dim=(1, 2, 3)) < 0.1
    assert bool((mirrored ^ kept).all())
    assert 70 < int(mirrored.sum()) < 130


def test_cuts_show_less_of_the_image() -> None:
    ramp = torch.arange(24).mul(10).to(torch.uint8).view(1, 1, 24, 1).expand(64, 24, 24, 3)
    views = levels(ramp, area_min=0.3)
    shown = views.amax(dim=(1, 2, 3)) - views.amin(dim=(1, 2, 3))
    assert float(shown.min()) > 230 * 0.3**0.5 - 25  # not less than allowed, up to rounding of a pixel
    assert float(shown.median()) < 215
    assert float(levels(ramp).amax() - levels(ramp).amin()) == pytest.approx(230, abs=0.1)


@pytest.mark.parametrize(("part", "extra"), [("coarse", {"coarse_min": 0.4}), ("blur", {"blur_sigma": 2.0})])
def test_coarse_and_blur_smooth_their_share_only(part: str, extra: dict[str, float]) -> None:
    source = pixels(100)
    plain = roughness(levels(source))
    ratio = roughness(levels(source, seed=3, **{part: 0.4}, **extra)) / plain
    assert 20 < int((ratio < 0.9).sum()) < 60
    assert int((ratio > 0.999).sum()) == 100 - int((ratio < 0.9).sum())


def test_grey_takes_the_colour_of_its_share() -> None:
    def colourless(share: float) -> int:
        views = levels(pixels(100), grey=share)
        return int(((views.amax(dim=1) - views.amin(dim=1)).amax(dim=(1, 2)) < 0.1).sum())

    assert colourless(1.0) == 100
    assert 25 < colourless(0.5) < 75
    assert colourless(0.0) == 0


def test_brightness_moves_the_mean_and_contrast_the_spread() -> None:
    flat = torch.full((100, 24, 24, 3), 128, dtype=torch.uint8)
    moved = levels(flat, brightness=20.0).mean(dim=(1, 2, 3)) - 128
    assert 15 < float(moved.abs().max()) <= 20.01
    spread = levels(pixels(100), contrast=0.3).std(dim=(1, 2, 3)) / levels(pixels(100)).std(dim=(1, 2, 3))
    assert float(spread.min()) < 0.8 < 1.1 < float(spread.max()) < 1.31


def test_noise_roughens_its_share_only() -> None:
    flat = torch.full((100, 24, 24, 3), 128, dtype=torch.uint8)
    rough = levels(flat, noise=0.3, noise_levels=16.0).std(dim=(1, 2, 3))
    assert 15 < int((rough > 0.01).sum()) < 45
    assert float(rough.max()) < 17


@pytest.mark.parametrize("side", [16, 24, 32])
def test_views_have_the_side_asked_for(side: int) -> None:
    assert levels(pixels(2), side=side, area_min=0.5).shape == (2, 3, side, side)


def test_much_smaller_views_are_not_aliased() -> None:
    # A view four times smaller samples between columns 1 and 2, 5 and 6, ...: all dark.
    dark = torch.tensor([False, True, True, False]).repeat(16)
    stripes = torch.where(dark, 0, 200).to(torch.uint8).view(1, 1, 64, 1).expand(4, 64, 64, 3)
    shrunk = levels(stripes, side=16)
    assert float((shrunk[..., 1:-1] - 100).abs().max()) < 10
