"""Drawn image classes, and a teacher that is a fixed linear map."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 70), "red": (200, 50, 40), "yellow": (210, 200, 50)}


class LinearTeacher:
    """Features are positive parts of a seeded linear map of the pixels, logits one of the features."""

    name = "linear"
    image_size = 8

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._features = random.normal(size=(self.image_size**2 * 3, 12)).astype(np.float32) / 8
        self._logits = random.normal(size=(12, 6)).astype(np.float32)
        self.sha256 = hashlib.sha256(self._features.tobytes()).hexdigest()
        self.asked: list[int] = []

    def ask(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert pixels.shape[1:] == (self.image_size, self.image_size, 3) and pixels.dtype == np.uint8
        self.asked.append(len(pixels))
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 128 - 1
        features = np.maximum(flat @ self._features, 0)
        return features, features @ self._logits


def draw_class(folder: Path, colour: tuple[int, int, int], count: int, *, seed: int, side: int = 24) -> None:
    """PNG files of one colour under a little noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = np.array(colour) + random.normal(0, 15, (side, side + 6, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
