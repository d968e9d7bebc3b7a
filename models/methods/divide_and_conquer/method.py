"""Slices of one embedding learn from parts of the images; beside it, what a plain training makes of the same."""

from typing import ClassVar

from pydantic import Field, model_validator

from models.contract import EmbeddingReport, FittedState, Params, Progress, Reference
from models.methods.divide_and_conquer.division import Learners
from models.similarity.fitted import FittedEmbedding, fitted, restored
from models.similarity.labelled import labelled_images
from models.similarity.losses import Loss, Miner
from models.similarity.protocol import Outcome, Plan, learn
from models.training import part_of


class DivideAndConquerParams(Params):
    """Parameters of `divide_and_conquer`."""

    learners: int = Field(default=8, ge=1, le=64, description="Slices of the embedding that learn apart.")
    every: int = Field(default=2, ge=1, le=100, description="Epochs after which the images are divided anew.")
    divided_share: float = Field(
        default=0.75, ge=0.0, le=1.0, description="Share of the epochs in which the slices learn apart."
    )
    loss: Loss = Field(default=Loss.TRIPLET, description="Loss of each learner.")
    miner: Miner = Field(default=Miner.NONE, description="Which pairs or triplets of a batch count; `none`: all.")
    trials: int = Field(default=20, ge=1, le=200, description="Settings tried, the usual ones first.")
    folds: int = Field(default=4, ge=2, le=10, description="Parts of the classes, each the validation of one training.")
    test_share: float = Field(
        default=0.5, ge=0.1, le=0.9, description="Share of the classes that only the figures are taken from."
    )
    seeds: int = Field(default=5, ge=1, le=20, description="Trainings of the chosen settings that give the interval.")
    width: int = Field(
        default=128, ge=2, le=1024, description="Dimensions that each fold gives; the learners share them."
    )
    hidden: int = Field(
        default=256, ge=0, le=2048, description="Units of the residual layer that all learners share; 0: none."
    )
    epochs: int = Field(default=20, ge=1, le=500, description="Passes of a training; the best one counts.")

    @model_validator(mode="after")
    def _slices_have_room(self) -> "DivideAndConquerParams":
        if self.learners * 2 > self.width:
            raise ValueError("such that each learner has two dimensions of `width` or more")
        return self


class DivideAndConquer:
    """A projection whose slices were learnt apart and then together."""

    name: ClassVar[str] = "divide_and_conquer"
    Params: ClassVar[type[Params]] = DivideAndConquerParams

    def __init__(self, params: DivideAndConquerParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedEmbedding:
        """The embedding that did best, its figures, and under `plain` those of the same training undivided.

        Raises:
            FitRefused: fewer than two classes of two images.
            ParameterInvalid: there are no vectors, or a loss is not finite.
            WidthMismatch, NotFinite: the vectors cannot be used.
        """
        images = labelled_images(reference, method=self.name)
        divided = learn(
            images, self.plan(), seed=seed, make_division=self.division, progress=part_of(progress, 0.0, 0.5)
        )
        plain = learn(images, self.plan(), seed=seed, progress=part_of(progress, 0.5, 1.0))
        told = divided.report
        beside = {"after": dict(plain.report.after), "settings": plain.report.details["settings"]}
        report = EmbeddingReport(told.before, told.after, told.better, {**told.details, "plain": beside})
        return fitted(self.name, Outcome(divided.projection, report), reference, self.params.model_dump(mode="json"))

    def restore(self, state: FittedState) -> FittedEmbedding:
        """The scorer that was exported."""
        return restored(self.name, state)

    def division(self, seed: int) -> Learners:
        """The learners of one training, before they have divided anything."""
        params = self.params
        divided = round(params.divided_share * params.epochs)
        return Learners(params.learners, params.width, every=params.every, divided=divided, seed=seed)

    def plan(self) -> Plan:
        """What is tried, and at what budget."""
        shared = self.params.model_dump(exclude={"loss", "learners", "every", "divided_share"})
        return Plan(method=self.name, losses=(self.params.loss,), **shared)
