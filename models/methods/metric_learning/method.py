"""Losses of metric learning under one protocol; what wins becomes the collection's new embedding."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from models.contract import FittedState, Params, Progress, Reference
from models.similarity.fitted import FittedEmbedding, fitted, restored
from models.similarity.labelled import labelled_images
from models.similarity.losses import Loss, Miner
from models.similarity.protocol import Plan, learn


class Compared(StrEnum):
    """A loss by name, or whichever of the usual three does best on the folds."""

    BEST = "best"
    CONTRASTIVE = "contrastive"
    TRIPLET = "triplet"
    MULTI_SIMILARITY = "multi_similarity"
    NT_XENT = "nt_xent"


class MetricLearningParams(Params):
    """Parameters of `metric_learning`."""

    loss: Compared = Field(
        default=Compared.BEST,
        description="`best`: contrastive, triplet and multi-similarity are compared, each with as many trials.",
    )
    miner: Miner = Field(default=Miner.NONE, description="Which pairs or triplets of a batch count; `none`: all.")
    trials: int = Field(default=20, ge=1, le=200, description="Settings tried for each loss, the usual ones first.")
    folds: int = Field(default=4, ge=2, le=10, description="Parts of the classes, each the validation of one training.")
    test_share: float = Field(
        default=0.5, ge=0.1, le=0.9, description="Share of the classes that only the figures are taken from."
    )
    seeds: int = Field(default=5, ge=1, le=20, description="Trainings of the chosen settings that give the interval.")
    width: int = Field(
        default=128, ge=2, le=1024, description="Dimensions that each fold gives; they stand side by side."
    )
    hidden: int = Field(
        default=0, ge=0, le=2048, description="Units of a residual layer before the projection; 0: none, it is linear."
    )
    epochs: int = Field(default=20, ge=1, le=500, description="Passes of a training; the best one counts.")


class MetricLearning:
    """A projection learnt from classes, by the loss and the settings that do best on classes kept apart."""

    name: ClassVar[str] = "metric_learning"
    Params: ClassVar[type[Params]] = MetricLearningParams

    def __init__(self, params: MetricLearningParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedEmbedding:
        """The embedding that did best, and its figures on test classes before and after.

        Raises:
            FitRefused: fewer than two classes of two images.
            ParameterInvalid: there are no vectors, or a loss is not finite.
            WidthMismatch, NotFinite: the vectors cannot be used.
        """
        images = labelled_images(reference, method=self.name)
        outcome = learn(images, self.plan(), seed=seed, progress=progress)
        return fitted(self.name, outcome, reference, self.params.model_dump(mode="json"))

    def restore(self, state: FittedState) -> FittedEmbedding:
        """The scorer that was exported."""
        return restored(self.name, state)

    def plan(self) -> Plan:
        """What is compared, and at what budget."""
        params = self.params
        usual = (Loss.CONTRASTIVE, Loss.TRIPLET, Loss.MULTI_SIMILARITY)
        return Plan(
            method=self.name,
            losses=usual if params.loss is Compared.BEST else (Loss(params.loss.value),),
            **params.model_dump(exclude={"loss"}),
        )
