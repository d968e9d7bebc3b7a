"""Versions of an image that are still of its kind: mirrored, moved, and in other light."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Changes:
    """How far an image may be changed without becoming another kind."""

    mirror: bool
    """Left and right may change places."""
    shift: float
    """Largest move along each axis, as a share of the side; what comes in is the image mirrored at its border."""
    light: float
    """Largest relative change of contrast, and change of brightness in standard deviations of ImageNet pixels."""


def versions(image: Floats, count: int, changes: Changes, random: np.random.Generator) -> Floats:
    """The image itself, then `count` - 1 changed copies.

    Shapes: image (3, H, W) as the network is fed -> (count, 3, H, W).
    """
    found = [image]
    reach = tuple(int(changes.shift * side) for side in image.shape[1:])
    padded = np.pad(image, ((0, 0), (reach[0], reach[0]), (reach[1], reach[1])), mode="reflect")
    for _ in range(count - 1):
        top, left = (int(random.integers(0, 2 * one + 1)) for one in reach)
        copy = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        if changes.mirror and random.random() < 0.5:
            copy = copy[:, :, ::-1]
        mean = copy.mean(axis=(1, 2), keepdims=True)
        contrast, brightness = 1.0 + changes.light * random.uniform(-1, 1), changes.light * random.uniform(-1, 1)
        found.append((mean + contrast * (copy - mean) + brightness).astype(np.float32))
    return np.stack(found)
