"""Minus the log density of a continuous flow on whitened coordinates, with a Gaussian for what they leave out."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import FitRefused
from models.float32 import as_float32
from models.held_out import bank_rows, images_alike, stacked_vectors
from models.methods.neural_ode.flow import VelocityField, log_density_adaptive, log_density_fixed, steps_needed
from models.network_arrays import arrays_of, loaded
from models.principal_directions import Directions, coordinates_and_residuals, principal_directions
from models.training import TrainingPlan, each_alone, part_of, seeded, train

BANK_MIN = 32
IMAGES_PER_DIMENSION = 4  # of the bank, at least
DENSITY_TOLERANCE = 1e-4  # nats by which fixed steps may differ from the adaptive solver
STEPS_MAX = 512
COMPARED = 256  # bank images on which the two are compared


class NeuralODEParams(Params):
    """Parameters of `neural_ode`."""

    dimensions: int = Field(
        default=16,
        ge=1,
        le=32,
        description="Whitened coordinates that flow, at most, and one per 4 images of the bank.",
    )
    hidden: int = Field(default=64, ge=4, le=256, description="Width of the velocity field's two hidden layers.")
    epochs: int = Field(default=40, ge=1, le=500, description="Passes over the bank, at most.")
    learning_rate: float = Field(default=5e-3, gt=0.0, le=1.0, description="Step of the optimiser (Adam).")


@dataclass(frozen=True, slots=True, eq=False)
class FittedNeuralODE:
    """The flow of one bank, and the number of steps that scoring takes along it."""

    directions: Directions
    rest_variance: float
    """Variance of one dimension outside the kept directions, over held-out images."""
    field: VelocityField
    steps: int
    method: str = "neural_ode"

    def score(self, inputs: Inputs) -> Scores:
        """Minus the log density of each vector in nats; `terms` are `flow` and `residual`, which sum to it.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        rows = stacked_vectors([inputs], method=self.method, width=self.directions.mean.size)
        coordinates, residuals = coordinates_and_residuals(rows, self.directions)
        whitened = torch.from_numpy(coordinates / np.sqrt(self.directions.variances))
        if not len(rows):
            densities = np.zeros(0)
        else:
            coupling = self.field.coupling()

            def field(t: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return self.field.at(t, z, coupling)

            (found,) = each_alone(lambda row: (log_density_fixed(field, row, self.steps),), whitened)
            densities = found.numpy()
        flow = 0.5 * np.log(self.directions.variances).sum() - densities
        outside = self.directions.mean.size - self.directions.variances.size
        residual = 0.5 * (residuals / self.rest_variance + outside * math.log(2 * math.pi * self.rest_variance))
        residual = residual if outside else np.zeros(len(rows))
        return Scores(
            image=as_float32(flow + residual), terms={"flow": as_float32(flow), "residual": as_float32(residual)}
        )

    def export(self) -> FittedState:
        """The state from which `NeuralODE.restore` builds a scorer with equal scores."""
        arrays = arrays_of(self.field, "field.")
        arrays |= {
            "mean": self.directions.mean,
            "components": self.directions.components,
            "variances": self.directions.variances,
        }
        return FittedState(
            arrays=arrays,
            values={
                "rest_variance": self.rest_variance,
                "steps": self.steps,
                "hidden": self.field.second.in_features,
            },
        )


class NeuralODE:
    """A continuous normalising flow of the bank's vectors."""

    name: ClassVar[str] = "neural_ode"
    Params: ClassVar[type[Params]] = NeuralODEParams

    def __init__(self, params: NeuralODEParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedNeuralODE:
        """The flow of this bank.

        Raises:
            BankTooSmall: fewer than 32 images.
            FitRefused: the images are all alike, or the flow is too steep for 512 fixed steps.
            ParameterInvalid: there are no vectors, or the learning rate is too large.
            WidthMismatch, NotFinite: the vectors cannot be used.
        """
        bank = bank_rows(reference, method=self.name, bank_min=BANK_MIN)
        part_of(progress, 0.0, 0.05)(0, 1)
        learnt = ~bank.is_held_out
        most = min(self.params.dimensions, int(learnt.sum()) // IMAGES_PER_DIMENSION)
        directions = principal_directions(bank.vectors[learnt], most)
        if not directions.variances.size:
            raise images_alike(self.name, len(bank.ids))
        coordinates, residuals = coordinates_and_residuals(bank.vectors, directions)
        # Images that took part in the components lie closer to them than new ones do.
        outside = bank.vectors.shape[1] - directions.variances.size
        rest = float(residuals[bank.is_held_out].mean()) / max(outside, 1)
        whitened = torch.from_numpy(coordinates / np.sqrt(directions.variances))
        field = self._field(whitened[learnt], whitened[bank.is_held_out], seed, part_of(progress, 0.05, 0.95))
        compare = part_of(progress, 0.95, 1.0)
        steps = steps_needed(
            field,
            whitened[:COMPARED],
            tolerance=DENSITY_TOLERANCE,
            most=STEPS_MAX,
            reached=lambda: compare(0, 1),
        )
        if steps is None:
            raise FitRefused(
                f"The flow of method `{self.name}` must be smooth enough for {STEPS_MAX} steps; got a steeper one. "
                "A smaller `learning_rate` or fewer `epochs` make it smoother."
            )
        compare(1, 1)
        return FittedNeuralODE(
            directions=directions,
            rest_variance=max(rest, 1e-9 * float(directions.variances[0])),
            field=field,
            steps=steps,
        )

    def restore(self, state: FittedState) -> FittedNeuralODE:
        """The scorer that was exported."""
        arrays, values = state.arrays, state.values
        directions = Directions(arrays["mean"], arrays["components"], arrays["variances"])
        field = VelocityField(width=directions.variances.size, hidden=int(values["hidden"]), generator=seeded(0))
        return FittedNeuralODE(
            directions=directions,
            rest_variance=float(values["rest_variance"]),
            field=loaded(field, arrays, "field."),
            steps=int(values["steps"]),
        )

    def _field(self, rows: torch.Tensor, held_out: torch.Tensor, seed: int, progress: Progress) -> VelocityField:
        generator = seeded(seed)
        field = VelocityField(width=rows.shape[1], hidden=self.params.hidden, generator=generator)
        train(
            field,
            lambda chosen: -log_density_adaptive(field, rows[chosen], adjoint=True).mean(),
            rows=len(rows),
            plan=TrainingPlan(
                epochs=self.params.epochs,
                batch=min(512, max(32, len(rows) // 8)),
                learning_rate=self.params.learning_rate,
                patience=6,
                gradient_norm_max=10.0,
            ),
            generator=generator,
            method=self.name,
            held_out_loss=lambda: -log_density_adaptive(field, held_out, adjoint=False).mean(),
            progress=progress,
        )
        return field.eval().requires_grad_(False)
