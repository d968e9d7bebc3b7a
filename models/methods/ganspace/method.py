"""Mahalanobis distance split into directions that can be named, shown and walked."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.contract import Explanation, FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import ParameterInvalid
from models.float32 import as_float32
from models.held_out import bank_rows, images_alike, stacked_vectors
from models.principal_directions import Directions, coordinates_and_residuals, principal_directions

BANK_MIN = 10
EXTREMES = 3  # bank images that show one end of a direction
TYPICAL_QUANTILE = 0.99
_STEPS = 3


class GANSpaceParams(Params):
    """Parameters of `ganspace`."""

    directions: int = Field(
        default=20, ge=1, le=256, description="Principal directions kept, at most; the rest is the residual."
    )


@dataclass(frozen=True, slots=True)
class FittedGANSpace:
    """The directions of one bank."""

    directions: Directions
    rest_variance: float
    """Variance of one dimension outside the kept directions, over held-out images."""
    typical: NDArray[np.float64]
    """(K + 1,) terms that one normal image in a hundred exceeds; the residual's last."""
    extremes: NDArray[np.int64]
    """(K, 2, 3) ids of the bank images lowest and highest along each direction, outermost first."""
    method: str = "ganspace"

    def score(self, inputs: Inputs) -> Scores:
        """The sum of a term for every kept direction and one for the residual, each in squared standard deviations.

        `terms` are `directions` (B, K), `residual` (B,) and `coordinates` (B, K) in standard deviations; the tag
        `direction` names the one that stands out, `1-` to `K+`, or None where it is the residual.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        coordinates, terms = self._terms(inputs)
        return Scores(
            image=as_float32(terms.sum(axis=1)),
            terms={
                "directions": as_float32(terms[:, :-1]),
                "residual": as_float32(terms[:, -1]),
                "coordinates": as_float32(coordinates / np.sqrt(self.directions.variances)),
            },
            tags={"direction": [self._name(*found) for found in self._outstanding(coordinates, terms)]},
        )

    def explain(self, inputs: Inputs) -> Explanation:
        """The bank images at the end of the direction that stands out in each image, and at its other end.

        Rows of -1 where the residual stands out: no kept direction says why.

        Raises:
            ParameterInvalid, WidthMismatch, NotFinite: as for `score`.
        """
        coordinates, terms = self._terms(inputs)
        towards = np.full((len(inputs), EXTREMES), -1, dtype=np.int64)
        away = towards.copy()
        sentences = []
        for number, (direction, side) in enumerate(self._outstanding(coordinates, terms)):
            if direction is None:
                sentences.append("Strange in a way that no kept direction describes.")
                continue
            towards[number], away[number] = self.extremes[direction, side], self.extremes[direction, 1 - side]
            deviations = abs(coordinates[number, direction]) / np.sqrt(self.directions.variances[direction])
            sentences.append(
                f"{deviations:.1f} standard deviations along direction {self._name(direction, side)} of the bank."
            )
        return Explanation(examples={"towards": towards, "away": away}, sentences=sentences)

    def walk(self, vector: NDArray[np.floating], direction: int, amounts: NDArray[np.floating]) -> NDArray[np.float64]:
        """Vectors along a direction from `vector`, to look up what lies there; only that direction's term changes.

        Shapes: vector (D,), amounts (n,) in standard deviations -> (n, D).

        Raises:
            ParameterInvalid: no such direction was kept.
        """
        kept = len(self.directions.variances)
        if not 0 <= direction < kept:
            raise ParameterInvalid(f"`direction` of method `ganspace` must be from 0 to {kept - 1}; got {direction}.")
        step = self.directions.components[direction] * np.sqrt(self.directions.variances[direction])
        walked: NDArray[np.float64] = vector + np.asarray(amounts)[:, None] * step
        return walked

    def export(self) -> FittedState:
        """The state from which `GANSpace.restore` builds a scorer with equal scores."""
        return FittedState(
            arrays={
                "mean": self.directions.mean,
                "components": self.directions.components,
                "variances": self.directions.variances,
                "typical": self.typical,
                "extremes": self.extremes,
            },
            values={"rest_variance": self.rest_variance},
        )

    def _terms(self, inputs: Inputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = stacked_vectors([inputs], method=self.method, width=self.directions.mean.size)
        coordinates, residuals = coordinates_and_residuals(rows, self.directions)
        return coordinates, _terms(coordinates, residuals, self.directions.variances, self.rest_variance)

    def _outstanding(
        self, coordinates: NDArray[np.float64], terms: NDArray[np.float64]
    ) -> list[tuple[int | None, int]]:
        """For each image the direction whose term is largest against what is typical of it, and its side."""
        found: list[tuple[int | None, int]] = []
        for row, excess in zip(coordinates, terms / self.typical, strict=True):
            direction = int(excess.argmax())
            found.append((None, 0) if direction == row.size else (direction, int(row[direction] > 0)))
        return found

    def _name(self, direction: int | None, side: int) -> str | None:
        return None if direction is None else f"{direction + 1}{'-+'[side]}"


class GANSpace:
    """Principal directions of the bank's vectors; the score is the distance along and outside them."""

    name: ClassVar[str] = "ganspace"
    Params: ClassVar[type[Params]] = GANSpaceParams

    def __init__(self, params: GANSpaceParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedGANSpace:
        """The directions of this bank; nothing in it is left to chance, so `seed` has no effect.

        Raises:
            BankTooSmall: fewer than 10 images.
            FitRefused: the images are all alike.
            ParameterInvalid, WidthMismatch, NotFinite: the bank has no vectors, or none that can be used.
        """
        del seed
        report = progress or _ignore
        bank = bank_rows(reference, method=self.name, bank_min=BANK_MIN)
        report(1, _STEPS)
        # Outside the directions, images that took part lie closer than new ones, the more so the fewer they
        # are; so the residual's size is read off images that took none.
        directions = principal_directions(bank.vectors[~bank.is_held_out], self.params.directions)
        if not directions.variances.size:
            raise images_alike(self.name, len(bank.ids))
        report(2, _STEPS)
        coordinates, residuals = coordinates_and_residuals(bank.vectors, directions)
        outside = bank.vectors.shape[1] - len(directions.variances)
        rest = float(residuals[bank.is_held_out].mean()) / max(outside, 1)
        rest_variance = max(rest, 1e-9 * float(directions.variances[0]))
        terms = _terms(coordinates, residuals, directions.variances, rest_variance)
        typical = np.append(
            np.quantile(terms[:, :-1], TYPICAL_QUANTILE, axis=0),
            np.quantile(terms[bank.is_held_out, -1], TYPICAL_QUANTILE),
        )
        by_coordinate = np.argsort(coordinates, axis=0, kind="stable")
        low, high = by_coordinate[:EXTREMES], by_coordinate[: -EXTREMES - 1 : -1]
        report(_STEPS, _STEPS)
        return FittedGANSpace(
            directions=directions,
            rest_variance=rest_variance,
            typical=np.maximum(typical, 1e-9),
            extremes=bank.ids[np.stack([low, high])].transpose(2, 0, 1).copy(),
        )

    def restore(self, state: FittedState) -> FittedGANSpace:
        """The scorer that was exported."""
        arrays = state.arrays
        return FittedGANSpace(
            directions=Directions(arrays["mean"], arrays["components"], arrays["variances"]),
            rest_variance=float(state.values["rest_variance"]),
            typical=arrays["typical"],
            extremes=arrays["extremes"],
        )


def _terms(
    coordinates: NDArray[np.float64], residuals: NDArray[np.float64], variances: NDArray[np.float64], rest: float
) -> NDArray[np.float64]:
    return np.column_stack([np.square(coordinates) / variances, residuals / rest])


def _ignore(done: int, total: int) -> None:
    del done, total
