"""Generated images that look enough like real ones to measure a network on: nothing needs to be shipped or fetched.

Three kinds in turn: fields of noise whose power falls with the square of the frequency, as that of photographs does;
gratings under such a field, as of textures and printed or woven surfaces; and shapes with sharp edges on a shaded
ground, as of parts and products. The same on every machine but for rounding in the last bit.
"""

import numpy as np
from numpy.typing import NDArray

EDITION = 1
KINDS = 3


def made_images(count: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Seeded images of all kinds in turn; image i is the same whatever `count` is.

    Shapes: (count, side, side, 3).
    """
    images = np.empty((count, side, side, 3), dtype=np.uint8)
    for number in range(count):
        random = np.random.Generator(np.random.PCG64([seed, number]))
        draw = (_field, _grating, _shapes)[number % KINDS]
        images[number] = draw(random, side).clip(0, 255).astype(np.uint8)
    return images


def _field(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Noise with the power spectrum of photographs (1/f²), its channels mostly alike."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(random.normal(size=(2, side, side)))
    light, hue = np.fft.irfft2(white / frequency, s=(side, side))
    contrast = random.uniform(25, 60)
    tint = random.uniform(-0.4, 0.4, 3)
    mixed = (light / light.std())[..., None] + (hue / hue.std())[..., None] * tint
    field: NDArray[np.float64] = random.uniform(80, 170, 3) + contrast * mixed
    return field


def _grating(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Two crossed waves of a few to many periods, under a field."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    waves = np.zeros((side, side))
    for _ in range(2):
        turn, periods = random.uniform(0, np.pi), random.uniform(4, side / 6)
        waves += np.sin(2 * np.pi * periods * (columns * np.cos(turn) + rows * np.sin(turn)) + random.uniform(0, 6))
    colour = random.uniform(-25, 25, 3)
    return 0.5 * _field(random, side) + 60 + (waves[..., None] * (25 + colour))


def _shapes(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Discs and rectangles on a shaded ground, with the noise of a camera."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    picture: NDArray[np.float64] = (
        random.uniform(60, 190, 3) + (columns * random.uniform(-60, 60) + rows * random.uniform(-60, 60))[..., None]
    )
    for _ in range(int(random.integers(3, 10))):
        top, left = random.uniform(0, 1, 2)
        height, width = random.uniform(0.05, 0.4, 2)
        if random.random() < 0.5:
            inside = (np.abs(rows - top) < height / 2) & (np.abs(columns - left) < width / 2)
        else:
            inside = ((rows - top) / height) ** 2 + ((columns - left) / width) ** 2 < 0.25
        picture[inside] = random.uniform(0, 255, 3)
    noise: NDArray[np.float64] = random.normal(0, 4, (side, side, 1))
    picture += noise
    return picture
