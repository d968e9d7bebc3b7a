"""A subspace fitted to all but the worst images of a bank, and a head trained to put the true class among the first."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from models.contract import CleanedBank, FittedState, Inputs, Params, Progress, Reference, Scores
from models.held_out import bank_rows, images_alike, stacked_vectors
from models.methods.soft_rank.isotonic import Regularisation
from models.methods.soft_rank.maths import soft_top_k_loss
from models.methods.soft_rank.trimmed import trimmed_components
from models.principal_directions import Directions, coordinates_and_residuals
from models.training import TrainingPlan, linear, part_of, seeded, train

BANK_MIN = 10
KEPT_WEIGHT = 0.5  # images that counted for less are what a cleaning drops
_LARGEST = float(np.finfo(np.float32).max)
_HEAD = TrainingPlan(epochs=60, batch=64, learning_rate=0.01, weight_decay=0.01)


class SoftRankParams(Params):
    """Parameters of `soft_rank`."""

    components: int = Field(default=20, ge=1, le=256, description="Dimensions of the fitted subspace, at most.")
    trimmed_share: float = Field(
        default=0.1, ge=0.0, le=0.5, description="Share of the bank that the fit may ignore, its worst part."
    )
    softness: float = Field(
        default=1e-5,
        ge=1e-9,
        le=1e6,
        description="Regularisation strength per image, in 1 / median loss: small trims, large is least squares.",
    )
    regularisation: Regularisation = Field(
        default=Regularisation.QUADRATIC, description="What makes sorting smooth, in the fit and in the head's loss."
    )
    steps: int = Field(default=30, ge=1, le=200, description="Refits of the subspace, at most.")
    top_k: int = Field(
        default=1, ge=1, le=10, description="Place among the classes that the head's loss asks of the true one."
    )


@dataclass(frozen=True, slots=True)
class Head:
    """A linear classifier on standardised vectors."""

    labels: tuple[str, ...]
    mean: NDArray[np.float64]
    """(D,)"""
    scale: NDArray[np.float64]
    """(D,)"""
    weights: NDArray[np.float64]
    """(K, D)"""
    bias: NDArray[np.float64]
    """(K,)"""


@dataclass(frozen=True, slots=True)
class FittedSoftRank:
    """The subspace of one bank, what each of its images counted for, and the head where there were classes."""

    directions: Directions
    ids: NDArray[np.int64]
    """(N,) of the bank, by ascending key"""
    weights: NDArray[np.float64]
    """(N,) from 0, ignored, to 1"""
    losses: NDArray[np.float64]
    """(N,) squared distances of the bank's images from the subspace"""
    objective: float
    trimmed_share: float
    head: Head | None = None
    method: str = "soft_rank"

    def score(self, inputs: Inputs) -> Scores:
        """The distance of each vector from the subspace; class probabilities where classes were registered.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        rows = stacked_vectors([inputs], method=self.method, width=self.directions.mean.size)
        residuals = coordinates_and_residuals(rows, self.directions)[1]
        probabilities: dict[str, NDArray[np.float32]] = {}
        if self.head is not None:
            table = np.array([_probabilities(row, self.head) for row in rows]).reshape(len(rows), -1)
            probabilities = {label: table[:, place].astype(np.float32) for place, label in enumerate(self.head.labels)}
        return Scores(image=np.minimum(np.sqrt(residuals), _LARGEST).astype(np.float32), probabilities=probabilities)

    def cleaned_bank(self) -> CleanedBank:
        """The bank without the images that counted for less than half when the subspace was fitted."""
        dropped = np.flatnonzero(self.weights < KEPT_WEIGHT)
        strangest_first = dropped[np.lexsort((self.ids[dropped], -self.losses[dropped]))]
        return CleanedBank(
            kept=np.sort(self.ids[self.weights >= KEPT_WEIGHT]),
            dropped=self.ids[strangest_first],
            scores=np.sqrt(self.losses[strangest_first]),
            report=self.findings(),
        )

    def findings(self) -> dict[str, Any]:
        """How many images the fit looked at and ignored, and the trimmed loss that it reached."""
        return {
            "images": int(self.ids.size),
            "ignored": int((self.weights < KEPT_WEIGHT).sum()),
            "trimmed_share": self.trimmed_share,
            "objective": self.objective,
        }

    def export(self) -> FittedState:
        """The state from which `SoftRank.restore` builds a scorer with equal scores."""
        arrays = {
            "mean": self.directions.mean,
            "components": self.directions.components,
            "variances": self.directions.variances,
            "ids": self.ids,
            "weights": self.weights,
            "losses": self.losses,
        }
        if self.head is not None:
            arrays |= {
                "head_mean": self.head.mean,
                "head_scale": self.head.scale,
                "head_weights": self.head.weights,
                "head_bias": self.head.bias,
            }
        return FittedState(
            arrays=arrays,
            values={
                "objective": self.objective,
                "trimmed_share": self.trimmed_share,
                "labels": list(self.head.labels) if self.head is not None else [],
            },
        )


class SoftRank:
    """Soft least trimmed squares on the bank, and a head under the soft top-k loss."""

    name: ClassVar[str] = "soft_rank"
    Params: ClassVar[type[Params]] = SoftRankParams

    def __init__(self, params: SoftRankParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedSoftRank:
        """The subspace of this bank, and a head where at least two classes are registered.

        Raises:
            BankTooSmall: fewer than 10 images.
            FitRefused: the images are all alike.
            ParameterInvalid, WidthMismatch, NotFinite: there are no vectors, or none that can be used.
        """
        bank = bank_rows(reference, method=self.name, bank_min=BANK_MIN)
        with_head = len(reference.labels) > 1
        found = trimmed_components(
            bank.vectors,
            self.params.components,
            trimmed_share=self.params.trimmed_share,
            softness=self.params.softness,
            regularisation=self.params.regularisation,
            steps_max=self.params.steps,
            progress=part_of(progress, 0.0, 0.5 if with_head else 1.0),
        )
        if not found.directions.variances.size:
            raise images_alike(self.name, len(bank.ids))
        head = self._head(reference, bank.vectors.shape[1], seed, part_of(progress, 0.5, 1.0)) if with_head else None
        part_of(progress, 0.0, 1.0)(1, 1)
        return FittedSoftRank(
            directions=found.directions,
            ids=bank.ids,
            weights=found.weights,
            losses=coordinates_and_residuals(bank.vectors, found.directions)[1],
            objective=found.objective,
            trimmed_share=self.params.trimmed_share,
            head=head,
        )

    def restore(self, state: FittedState) -> FittedSoftRank:
        """The scorer that was exported."""
        arrays, values = state.arrays, state.values
        head = None
        if values["labels"]:
            head = Head(
                labels=tuple(values["labels"]),
                mean=arrays["head_mean"],
                scale=arrays["head_scale"],
                weights=arrays["head_weights"],
                bias=arrays["head_bias"],
            )
        return FittedSoftRank(
            directions=Directions(arrays["mean"], arrays["components"], arrays["variances"]),
            ids=arrays["ids"],
            weights=arrays["weights"],
            losses=arrays["losses"],
            objective=float(values["objective"]),
            trimmed_share=float(values["trimmed_share"]),
            head=head,
        )

    def _head(self, reference: Reference, width: int, seed: int, progress: Progress) -> Head:
        labels = tuple(sorted(reference.labels))
        classes = [stacked_vectors(reference.labels[label], method=self.name, width=width) for label in labels]
        rows = np.concatenate(classes).astype(np.float64)
        targets = torch.tensor(np.repeat(np.arange(len(labels)), [len(one) for one in classes]))
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0) * np.sqrt(width)  # vectors of length about 1
        generator = seeded(seed)
        net = linear(width, len(labels), generator).double()
        standard = torch.tensor((rows - mean) / scale)
        train(
            net,
            lambda chosen: soft_top_k_loss(
                net(standard[chosen]),
                targets[chosen],
                min(self.params.top_k, len(labels) - 1),
                regularisation=self.params.regularisation,
            ),
            rows=len(rows),
            plan=_HEAD,
            generator=generator,
            method=self.name,
            progress=progress,
        )
        return Head(
            labels=labels,
            mean=mean,
            scale=scale,
            weights=net.weight.detach().numpy(),
            bias=net.bias.detach().numpy(),
        )


def _probabilities(row: NDArray[np.float32], head: Head) -> NDArray[np.float64]:
    logits = head.weights @ ((row.astype(np.float64) - head.mean) / head.scale) + head.bias
    raised = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares
