"""The fitted scorer: one Gaussian over the bank's vectors."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores, Slopes
from models.errors import BankTooSmall
from models.methods.mahalanobis.maths import Gaussian, distance_slopes, distances, gaussian

NAME = "mahalanobis"
BANK_MIN = 2


class MahalanobisParams(Params):
    """Parameters of `mahalanobis`."""

    shrinkage: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Share of the covariance that is replaced by equal variance in all directions; "
        "null estimates it (Ledoit-Wolf).",
    )


@dataclass(frozen=True, slots=True)
class FittedMahalanobis:
    """A Gaussian that scores by distance."""

    model: Gaussian
    method: str = NAME

    def score(self, inputs: Inputs) -> Scores:
        """Distance of each image from the mean of the normal images, in standard deviations."""
        assert inputs.vectors is not None
        return Scores(image=distances(inputs.vectors, self.model).astype(np.float32))

    def slopes(self, inputs: Inputs) -> Slopes:
        """The gradient of each distance with respect to its vector."""
        assert inputs.vectors is not None
        return Slopes(vectors=distance_slopes(inputs.vectors, self.model))

    def export(self) -> FittedState:
        """Mean, whitening and the shrinkage that was used."""
        return FittedState(
            arrays={"mean": self.model.mean, "whitening": self.model.whitening},
            values={"shrinkage": self.model.shrinkage},
        )


class Mahalanobis:
    """Mean and shrunk covariance of the bank's vectors."""

    name: ClassVar[str] = NAME
    Params: ClassVar[type[Params]] = MahalanobisParams

    def __init__(self, params: MahalanobisParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedMahalanobis:
        """The Gaussian of the bank; nothing is drawn, so the seed changes nothing.

        Memory: the bank's vectors in float64.

        Raises:
            BankTooSmall: fewer than two images.

        Source: Rippel, Mertens, Merhof 2020, arXiv:2005.14140.
        """
        rows = []
        for place, batch in enumerate(reference.bank, 1):
            assert batch.vectors is not None
            rows.append(np.asarray(batch.vectors))
            if progress is not None:
                progress(place, len(reference.bank))
        count = sum(map(len, rows))
        if count < BANK_MIN:
            raise BankTooSmall(f"The bank of method `{NAME}` must hold at least {BANK_MIN} images to fit; got {count}.")
        return FittedMahalanobis(gaussian(np.concatenate(rows), self.params.shrinkage))

    def restore(self, state: FittedState) -> FittedMahalanobis:
        """The scorer that was exported."""
        arrays, values = state.arrays, state.values
        return FittedMahalanobis(Gaussian(arrays["mean"], arrays["whitening"], values["shrinkage"]))
