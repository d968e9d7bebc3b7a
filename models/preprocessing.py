"""Pixels to the numbers a backbone reads: one path for learning, scoring and evaluating.

Resizing is Pillow's, on 8-bit integers: its filters widen with the reduction (antialiasing) and its
fixed-point arithmetic gives the same bits on every processor. Normalising is a table of 256 values per
channel.

Two ways to fit an oblong image into the square:

* `squash` (the default): the whole image is resized to the square. Nothing at the border is lost, where a
  centre crop would hide a defect; the shape is distorted, equally for every image of the same proportions.
* `crop`: the shorter side is resized, then the centre is kept.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ParameterInvalid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SIZE_MIN = 32  # below it the last stage of a ResNet is a single cell
SIZE_MAX = 1024

Fit = Literal["squash", "crop"]
Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def margins(fit: Fit, width: int, height: int) -> tuple[float, float]:
    """Share of an image that the square leaves out on the left and on the right, and at the top and at the bottom."""
    if fit == "squash":
        return 0.0, 0.0
    short = min(width, height)
    return (width - short) / 2 / width, (height - short) / 2 / height


@dataclass(frozen=True)
class Preprocessing:
    """Everything between the decoder and the backbone; part of an embedding's identity."""

    image_size: int
    fit: Fit = "squash"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not SIZE_MIN <= self.image_size <= SIZE_MAX:
            raise ParameterInvalid(
                f"`image_size` of an embedding must be from {SIZE_MIN} to {SIZE_MAX} pixels; got {self.image_size}."
            )
        if self.fit not in ("squash", "crop"):
            raise ParameterInvalid(f"`fit` of an embedding must be squash or crop; got {self.fit}.")
        if self.interpolation not in _FILTERS:
            raise ParameterInvalid(
                f"`interpolation` of an embedding must be bilinear or bicubic; got {self.interpolation}."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ParameterInvalid(
                f"`mean` and `std` of an embedding must be three numbers each, `std` positive; got "
                f"{self.mean} and {self.std}."
            )

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalised square of one image.

        Shapes: pixels (H, W, 3) uint8 -> (3, S, S) float32, contiguous; S = image_size.
        Memory: the image once more, whatever its proportions: the square is cut while resizing, not after.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise ParameterInvalid(
                f"`pixels` of an image must be (height, width, 3) of uint8; got {pixels.shape} of {pixels.dtype}."
            )
        return self.apply_image(Image.fromarray(pixels))

    def apply_image(self, image: Image.Image) -> NDArray[np.float32]:
        """The same of an RGB image as Pillow holds it, at full scale or reduced by the decoder."""
        return self.normalised(self.square(image))

    def square(self, image: Image.Image) -> NDArray[np.uint8]:
        """The square of such an image before normalising, (S, S, 3) uint8."""
        width, height = image.size
        box = (0.0, 0.0, float(width), float(height))
        if self.fit == "crop":
            short = min(height, width)
            left, top = (width - short) / 2, (height - short) / 2
            box = (left, top, left + short, top + short)
        square = image.resize((self.image_size, self.image_size), _FILTERS[self.interpolation], box=box)
        return np.asarray(square)

    def normalised(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(S, S, 3) uint8 -> (3, S, S) float32, contiguous."""
        pixels = np.empty((3, *levels.shape[:2]), np.float32)
        for channel, values in enumerate(self._table):
            # The mode only spares a buffer: there is no level that the table lacks.
            values.take(levels[:, :, channel], out=pixels[channel], mode="clip")
        return pixels

    def describe(self) -> dict[str, object]:
        """The facts that decide the numbers, as plain JSON values."""
        return {
            "image_size": self.image_size,
            "fit": self.fit,
            "interpolation": self.interpolation,
            "antialias": True,
            "resized_by": "pillow uint8",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest number that a pixel can become."""
        return float(self._table.min()), float(self._table.max())

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        level = np.arange(256, dtype=np.float64) / 255.0
        rows = [(level - mean) / std for mean, std in zip(self.mean, self.std, strict=True)]
        return np.asarray(rows, dtype=np.float32)
