"""Packed pixels to varied views, a whole batch at a time.

Everything is drawn from one generator on the processor, so that the same seed gives the same views wherever
they are computed.
"""

import math

import torch
import torch.nn.functional as functional
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Augmentation(BaseModel):
    """How far a view may depart from its image; each part is off at 0 (at 1 for `area_min`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    area_min: float = Field(default=0.55, gt=0, le=1, description="Smallest share of the image a view shows.")
    aspect: float = Field(default=0.2, ge=0, le=1, description="Largest logarithm of a cut's width over height.")
    flip: float = Field(default=0.5, ge=0, le=1, description="Share of views mirrored left to right.")
    coarse: float = Field(
        default=0.2, ge=0, le=1, description="Share of views shrunk and enlarged again, as thumbnails are."
    )
    coarse_min: float = Field(default=0.4, gt=0, le=1, description="Smallest side of such a thumbnail, in views.")
    blur: float = Field(default=0.0, ge=0, le=1, description="Share of views blurred by a Gaussian.")
    blur_sigma: float = Field(default=1.5, gt=0, le=8, description="Largest width of that Gaussian, in pixels.")
    contrast: float = Field(default=0.3, ge=0, lt=1, description="Largest change of contrast, as a share.")
    brightness: float = Field(default=20.0, ge=0, le=255, description="Largest shift of brightness, in levels.")
    saturation: float = Field(default=0.3, ge=0, lt=1, description="Largest change of saturation, as a share.")
    grey: float = Field(default=0.06, ge=0, le=1, description="Share of views without colour.")
    noise: float = Field(default=0.1, ge=0, le=1, description="Share of views with noise added.")
    noise_levels: float = Field(default=16.0, gt=0, le=255, description="Largest deviation of that noise, in levels.")


DEFAULT_AUGMENTATION = Augmentation()
NO_AUGMENTATION = Augmentation(
    area_min=1, aspect=0, flip=0, coarse=0, blur=0, contrast=0, brightness=0, saturation=0, grey=0, noise=0
)


def augmented(pixels: Tensor, side: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """One view of each image, normalised with ImageNet's mean and deviation, channels innermost in memory.

    Shapes: pixels (B, H, W, 3) uint8 -> (B, 3, side, side) float32, on the device of `pixels`.
    Units:  `blur_sigma` counts pixels of the view, `noise_levels` and `brightness` levels of 0 to 255.
    """
    views = _cut(pixels.permute(0, 3, 1, 2).float(), side, augmentation, generator)
    views = _coarse(views, augmentation, generator)
    views = _blurred(views, augmentation, generator)
    views = _recoloured(views, augmentation, generator)
    views = _noisy(views, augmentation, generator)
    return normalised(views.clamp(0, 255))


def normalised(levels: Tensor) -> Tensor:
    """Levels of 0 to 255 as the backbone reads them.

    Shapes: (B, 3, H, W) -> the same, channels innermost in memory.
    """
    mean = levels.new_tensor(IMAGENET_MEAN).mul(255).view(1, 3, 1, 1)
    std = levels.new_tensor(IMAGENET_STD).mul(255).view(1, 3, 1, 1)
    return ((levels - mean) / std).contiguous(memory_format=torch.channels_last)


def _cut(levels: Tensor, side: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    count = len(levels)
    area = 1 - (1 - augmentation.area_min) * torch.rand(count, generator=generator)
    aspect = torch.exp((2 * torch.rand(count, generator=generator) - 1) * augmentation.aspect)
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    grid = torch.zeros(count, 2, 3)
    mirrored = torch.rand(count, generator=generator) < augmentation.flip
    grid[:, 0, 0] = torch.where(mirrored, -width, width)
    grid[:, 0, 2] = (2 * torch.rand(count, generator=generator) - 1) * (1 - width)
    grid[:, 1, 1] = height
    grid[:, 1, 2] = (2 * torch.rand(count, generator=generator) - 1) * (1 - height)
    # Bilinear sampling alone would alias where the view is much smaller than the packed image.
    reduction = levels.shape[-1] * math.sqrt(augmentation.area_min) / side
    if reduction > 1:
        smaller = max(side, round(levels.shape[-1] / reduction))
        levels = functional.interpolate(levels, size=(smaller, smaller), mode="bilinear", antialias=True)
    return functional.grid_sample(
        levels,
        functional.affine_grid(grid, [count, 3, side, side], align_corners=False).to(levels.device),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )


def _coarse(views: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    rows = _chosen(len(views), augmentation.coarse, generator)
    if len(rows) == 0:
        return views
    side = views.shape[-1]
    # One size for a batch: a size for each view would cost as many calls as views.
    smallest = max(1, math.floor(side * augmentation.coarse_min))
    small = int(torch.randint(smallest, side + 1, (1,), generator=generator))
    thumbnails = functional.interpolate(views[rows], size=(small, small), mode="bilinear", antialias=True)
    views[rows] = functional.interpolate(thumbnails, size=(side, side), mode="bicubic", align_corners=False)
    return views


def _blurred(views: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    rows = _chosen(len(views), augmentation.blur, generator)
    if len(rows) == 0:
        return views
    sigma = 0.3 + (augmentation.blur_sigma - 0.3) * float(torch.rand(1, generator=generator))
    reach = min(math.ceil(2.5 * abs(sigma)), views.shape[-1] - 1)
    offsets = torch.arange(-reach, reach + 1, device=views.device, dtype=views.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(views[rows], (reach, reach, reach, reach), mode="reflect")
    padded = functional.conv2d(padded, kernel, groups=3)
    views[rows] = functional.conv2d(padded, kernel.transpose(2, 3), groups=3)
    return views


def _recoloured(views: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    count = len(views)

    def spread(reach: float) -> Tensor:
        drawn = (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1) * reach
        return drawn.to(views.device)

    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = (views - mean) * (1 + spread(augmentation.contrast)) + mean + spread(augmentation.brightness)
    saturation = 1 + spread(augmentation.saturation)
    saturation[_chosen(count, augmentation.grey, generator)] = 0
    grey = views.mean(dim=1, keepdim=True)
    return (views - grey) * saturation + grey


def _noisy(views: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    rows = _chosen(len(views), augmentation.noise, generator)
    if len(rows) == 0:
        return views
    levels = torch.rand(len(rows), 1, 1, 1, generator=generator) * augmentation.noise_levels
    noise = levels * torch.randn(len(rows), *views.shape[1:], generator=generator)
    views[rows] += noise.to(views.device)
    return views


def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Numbers of the rows drawn, each with probability `share`."""
    return torch.nonzero(torch.rand(count, generator=generator) < share).flatten()
