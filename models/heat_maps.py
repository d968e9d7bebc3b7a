"""Heat maps as pictures, on one scale per fitted scorer: a good image stays pale, whatever its own range."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.judging import make_calibration

RATE = 0.01
"""Of calibration images, the share whose hottest cell may lie above `HeatScale.border`."""
_YELLOW, _RED = np.array([255.0, 210.0, 0.0]), np.array([220.0, 0.0, 0.0])
_OPAQUE = 200.0  # of 255: the image stays visible below the strongest red
_SMALLEST = 1e-12
MASK_COLOURS = ((255, 255, 255), (220, 0, 0))
"""Of a mask: what is normal, what is not."""
MASK_SIDE_MAX = 4096  # finer the border of a region is not drawn


@dataclass(frozen=True, slots=True)
class HeatScale:
    """What is shown pale and what is shown red, in the unit of the score."""

    low: float
    """Up to here nothing is drawn: the median cell of normal images."""
    border: float
    """Half of the scale: the hottest cell of a normal image lies below it, but for one in a hundred."""

    @property
    def high(self) -> float:
        """From here on all is red."""
        return self.low + 2.0 * (self.border - self.low)


def heat_scale(maps: Sequence[NDArray[np.float32]]) -> HeatScale:
    """The scale that calibration images set.

    Shapes: n maps (h, w), n >= 1.
    """
    low = float(np.median(np.concatenate([one.ravel() for one in maps]).astype(np.float64)))
    hottest = np.array([one.max() for one in maps], np.float64)
    border = make_calibration(hottest, RATE).threshold
    border = float(hottest.max()) if border is None else border
    return HeatScale(low, max(border, low + max(abs(low), 1.0) * _SMALLEST))


def overlay_png(heat: NDArray[np.float32], scale: HeatScale, width: int, height: int) -> bytes:
    """A PNG with transparency to lay over an image: clear up to `low`, yellow at `border`, red from `high` on.

    Shapes: heat (h, w) -> PNG of width x height pixels.
    """
    level = np.clip((heat.astype(np.float64) - scale.low) / (scale.high - scale.low), 0.0, 1.0)
    grown = np.asarray(Image.fromarray(level.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    share = grown[:, :, None].astype(np.float64)
    toward_red = np.clip(2.0 * share - 1.0, 0.0, 1.0)
    colours = (1.0 - toward_red) * _YELLOW + toward_red * _RED
    alpha = _OPAQUE * np.clip(2.0 * share, 0.0, 1.0)
    pixels = np.concatenate([colours, alpha], axis=2).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def mask_png(
    heat: NDArray[np.float32], border: float, box: tuple[float, float, float, float], width: int, height: int
) -> tuple[bytes, float]:
    """A PNG of an image's size, red where the heat lies above the border and white elsewhere; and the share of red.

    Shapes: heat (h, w) of the part `box` (left, top, right, bottom, in shares of the image) -> PNG of width x height.
    Memory: 1 byte a pixel, and 4 for each of at most 4096 x 4096.
    """
    left, top, right, bottom = (round(a * b) for a, b in zip(box, (width, height, width, height), strict=True))
    across, down = max(1, right - left), max(1, bottom - top)
    shrunk = min(1.0, MASK_SIDE_MAX / max(across, down))
    fine = (max(1, round(across * shrunk)), max(1, round(down * shrunk)))
    grown = Image.fromarray(heat.astype(np.float32)).resize(fine, Image.Resampling.BILINEAR)
    is_above = Image.fromarray((np.asarray(grown) > border).astype(np.uint8))
    mask = Image.new("P", (width, height), 0)
    mask.putpalette([*MASK_COLOURS[0], *MASK_COLOURS[1]])
    mask.paste(is_above.resize((across, down), Image.Resampling.NEAREST), (left, top))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue(), mask.histogram()[1] / (width * height)
