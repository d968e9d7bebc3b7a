"""Images for the demonstration: scikit-learn's handwritten digits, and woven textures drawn on the spot."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

SIDE_PIXELS = 64
TEXTURE_PIXELS = 96
DEFECTS = ("scratch", "stain", "cut")


@dataclass(frozen=True, slots=True)
class MadeImage:
    """A PNG with what it shows."""

    name: str
    kind: str  # the digit, `flawless`, or the planted defect
    data: bytes
    mask: bytes | None = None  # a PNG, white where the planted defect lies


def digit_images() -> list[MadeImage]:
    """The 1,797 scanned digits of 8 by 8 pixels, enlarged; `kind` is the digit."""
    scans = load_digits()
    made = []
    for number, (scan, digit) in enumerate(zip(scans.images, scans.target, strict=True)):
        small = Image.fromarray((255 - scan * (255 / 16)).round().astype(np.uint8))
        image = small.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC)
        made.append(MadeImage(f"digit-{digit}-{number:04}.png", str(digit), _png(image)))
    return made


def texture_images(count: int, defects: int, seed: int) -> list[MadeImage]:
    """`count` flawless woven textures, then `defects` with one planted defect each, kinds in turn.

    The same seed gives the same bytes.
    """
    random = np.random.default_rng(seed)
    made = [MadeImage(f"weave-{number:04}.png", "flawless", _png(_texture(random))) for number in range(count)]
    for number in range(defects):
        kind = DEFECTS[number % len(DEFECTS)]
        image, mask = _damaged(_texture(random), kind, random)
        made.append(MadeImage(f"weave-{kind}-{number:04}.png", kind, _png(image), _png(mask)))
    return made


def _texture(random: np.random.Generator) -> Image.Image:
    """A weave whose phase, light and grain vary a little."""
    y, x = np.mgrid[0:TEXTURE_PIXELS, 0:TEXTURE_PIXELS].astype(np.float64)
    period = 8.0
    phase_x, phase_y = random.uniform(0, period, 2)
    weave = np.sin(2 * np.pi * (x + phase_x) / period) * np.sin(2 * np.pi * (y + phase_y) / period)
    light = random.uniform(-6, 6) + random.uniform(-0.06, 0.06) * (x - TEXTURE_PIXELS / 2)
    grain = random.normal(0, 5, weave.shape)
    grey = 140 + 34 * weave + light + grain
    return _image(grey[:, :, None] * np.array([1.0, 0.94, 0.82]))


def _damaged(image: Image.Image, kind: str, random: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The image with a defect, and the defect's mask."""
    low, high = TEXTURE_PIXELS // 5, TEXTURE_PIXELS * 4 // 5
    x, y = (int(value) for value in random.integers(low, high, 2))
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    if kind == "scratch":
        angle, length = random.uniform(0, np.pi), random.uniform(30, 60)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line([(x, y), end], fill=255, width=3)
        colour = (235, 232, 225)
    elif kind == "stain":
        radius = int(random.integers(8, 15))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius * 0.8], fill=255)
        colour = (62, 48, 40)
    else:
        draw.rectangle([x - 3, 0, x + 3, TEXTURE_PIXELS], fill=255)
        colour = (96, 88, 76)
    image.paste(colour, mask=mask)
    return image, mask


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
