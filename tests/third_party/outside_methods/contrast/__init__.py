"""Deviation from the mean picture, cell by cell, with a term for a stage of the network."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores

CELL = 8
STAGE = 2


class ContrastParams(Params):
    """It has none."""


@dataclass(frozen=True, slots=True)
class FittedContrast:
    """The mean picture, and the mean map of one stage."""

    mean: np.ndarray
    mean_map: np.ndarray
    method: str = "contrast"

    def score(self, inputs: Inputs) -> Scores:
        assert inputs.pixels is not None
        away = np.abs(np.asarray(inputs.pixels) - self.mean).mean(axis=1)
        b, h, w = away.shape
        cells = away.reshape(b, h // CELL, CELL, w // CELL, CELL).mean(axis=(2, 4))
        features = np.abs(inputs.maps[STAGE] - self.mean_map).mean(axis=(1, 2, 3))
        image = cells.reshape(b, -1).max(axis=1)
        return Scores(
            image=image.astype(np.float32),
            pixels=cells.astype(np.float32),
            terms={"features": features.astype(np.float32), "cells": cells.reshape(b, -1).astype(np.float32)},
            tags={"where": [f"cell {row.argmax()}" for row in cells.reshape(b, -1)]},
        )

    def export(self) -> FittedState:
        return FittedState({"mean": self.mean, "mean_map": self.mean_map}, {})


class METHOD:
    """Mean picture of the bank."""

    name: ClassVar[str] = "contrast"
    Params: ClassVar[type[Params]] = ContrastParams

    def __init__(self, params: ContrastParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedContrast:
        pixels = np.concatenate([np.asarray(batch.pixels) for batch in reference.bank])
        maps = np.concatenate([np.asarray(batch.maps[STAGE]) for batch in reference.bank])
        return FittedContrast(pixels.mean(axis=0), maps.mean(axis=0))

    def restore(self, state: FittedState) -> FittedContrast:
        return FittedContrast(state.arrays["mean"], state.arrays["mean_map"])
