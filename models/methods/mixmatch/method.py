"""The log-odds that an image is of a registered kind and not normal, learnt from few labels and a pool without any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores, Slopes
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.float32 import as_float32
from models.held_out import stacked_vectors
from models.methods.mixmatch.augment import Changes, versions
from models.methods.mixmatch.network import Head, Material, Recipe, train_head
from models.network_arrays import arrays_of, loaded
from models.training import TrainingPlan, each_alone, part_of, seeded

BANK_MIN = 8
NORMAL = "(normal)"  # a label holds no parentheses, so no class is called so
BATCH = 64


class MixMatchParams(Params):
    """Parameters of `mixmatch`."""

    versions: int = Field(
        default=8, ge=1, le=32, description="Versions of each image whose vectors are kept, itself among them."
    )
    guesses: int = Field(
        default=2, ge=1, le=32, description="Versions over which the label of an unlabelled image is guessed (K)."
    )
    temperature: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Sharpens guessed labels; 1 leaves them as they are (T)."
    )
    alpha: float = Field(default=0.75, ge=0.0, le=10.0, description="Of MixUp's Beta distribution; 0: no MixUp.")
    unlabelled_weight: float = Field(
        default=10.0, ge=0.0, le=1000.0, description="Weight of the squared error on guessed labels, once ramped up."
    )
    ramp: float = Field(default=1.0, ge=0.0, le=1.0, description="Share of the steps over which that weight rises.")
    mirror: bool = Field(default=True, description="Left and right of an image may change places.")
    shift: float = Field(default=0.1, ge=0.0, le=0.45, description="Largest move of an image, as a share of its side.")
    light: float = Field(default=0.2, ge=0.0, le=1.0, description="Largest change of contrast and brightness.")
    bank_images: int = Field(
        default=512, ge=BANK_MIN, le=100_000, description="Normal images learnt from, at most; spread over the bank."
    )
    pool_images: int = Field(
        default=4096, ge=1, le=1_000_000, description="Unlabelled images learnt from, at most; spread over the pool."
    )
    hidden: int = Field(default=128, ge=4, le=1024, description="Width of the two hidden layers.")
    epochs: int = Field(default=60, ge=1, le=1000, description="Passes over the pool; of a small one, ten steps each.")
    learning_rate: float = Field(default=5e-3, gt=0.0, le=1.0, description="Step of the optimiser (Adam).")

    @model_validator(mode="after")
    def _guesses_have_versions(self) -> "MixMatchParams":
        if self.guesses > self.versions:
            raise ValueError(f"with `guesses` of at most `versions`, {self.versions}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class FittedMixMatch:
    """The trained head; its first class is the bank's."""

    head: Head
    labels: tuple[str, ...]
    params: MixMatchParams
    method: str = "mixmatch"

    def score(self, inputs: Inputs) -> Scores:
        """Log-odds of the registered classes against normal, in nats, and the probability of each class.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        rows = stacked_vectors([inputs], method=self.method, width=self.head.mean.numel())
        names = (NORMAL, *self.labels)
        logits = np.zeros((0, len(names)))
        if len(rows):
            (found,) = each_alone(lambda row: (self.head(row),), torch.from_numpy(rows).double())
            logits = found.numpy()
        shares = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
        return Scores(
            image=as_float32(_log_odds(torch.from_numpy(logits)).numpy()),
            probabilities={name: shares[:, place].astype(np.float32) for place, name in enumerate(names)},
        )

    def slopes(self, inputs: Inputs) -> Slopes:
        """The gradient of each score with respect to its vector."""
        rows = stacked_vectors([inputs], method=self.method, width=self.head.mean.numel())
        found = np.zeros(rows.shape, np.float64)
        for place, row in enumerate(rows):
            leaf = torch.from_numpy(row.copy()).double()[None].requires_grad_(True)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(_log_odds(self.head(leaf)).sum(), leaf)
            found[place] = gradient[0].numpy()
        return Slopes(vectors=found)

    def export(self) -> FittedState:
        """The state from which `MixMatch.restore` builds a scorer with equal scores."""
        arrays = arrays_of(self.head, "head.")
        return FittedState(
            arrays=arrays, values={"params": self.params.model_dump(mode="json"), "labels": list(self.labels)}
        )


class MixMatch:
    """A head on vectors of augmented images, taught by few labels and by its own sharpened guesses about a pool."""

    name: ClassVar[str] = "mixmatch"
    Params: ClassVar[type[Params]] = MixMatchParams

    def __init__(self, params: MixMatchParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedMixMatch:
        """The head of this bank, these classes and this pool.

        Memory: the vectors of `versions` versions of every image learnt from.

        Raises:
            BankTooSmall: fewer than 8 images in the bank.
            FitRefused: there are no labels, no unlabelled images, or all images are alike.
            ParameterInvalid: there are no pixels to change, or the learning rate is too large.
        """
        params = self.params
        size = sum(map(len, reference.bank))
        if size < BANK_MIN:
            raise BankTooSmall(
                f"The bank of method `{self.name}` must hold at least {BANK_MIN} normal images; got {size}."
            )
        labels = tuple(sorted(label for label, batches in reference.labels.items() if sum(map(len, batches))))
        pool = sum(map(len, reference.unlabelled))
        if not labels or not pool:
            raise FitRefused(
                f"The collection of method `{self.name}` must hold classes with examples and unlabelled images; "
                f"got {len(labels)} classes and {pool} unlabelled images."
            )
        random = np.random.default_rng(seed)
        generator = seeded(seed)
        material = self._material(reference, labels, random, part_of(progress, 0.0, 0.6))
        if not np.ptp(material.labelled, axis=(0, 1)).any() and not np.ptp(material.unlabelled, axis=(0, 1)).any():
            raise FitRefused(f"The images of method `{self.name}` must differ; got {size} normal ones, all alike.")
        head = Head(material.labelled.shape[2], params.hidden, 1 + len(labels), generator)
        recipe = Recipe(params.guesses, params.temperature, params.alpha, params.unlabelled_weight, params.ramp)
        plan = TrainingPlan(
            epochs=params.epochs, batch=BATCH, learning_rate=params.learning_rate, gradient_norm_max=100.0
        )
        train_head(
            head,
            material,
            recipe,
            plan,
            random=random,
            generator=generator,
            method=self.name,
            progress=part_of(progress, 0.6, 1.0),
        )
        return FittedMixMatch(head.double().eval().requires_grad_(False), labels, params)

    def restore(self, state: FittedState) -> FittedMixMatch:
        """The scorer that was exported."""
        params = MixMatchParams.model_validate(state.values["params"])
        labels = tuple(state.values["labels"])
        head = Head(len(state.arrays["head.mean"]), params.hidden, 1 + len(labels), seeded(0)).double()
        return FittedMixMatch(loaded(head, state.arrays, "head."), labels, params)

    def _material(
        self, reference: Reference, labels: Sequence[str], random: np.random.Generator, progress: Progress
    ) -> Material:
        params = self.params
        parts = [(reference.bank, params.bank_images)]
        parts += [(reference.labels[label], len(labels) + sum(map(len, reference.labels[label]))) for label in labels]
        parts += [(reference.unlabelled, params.pool_images)]
        total = sum(min(sum(map(len, batches)), most) for batches, most in parts)
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        found = [self._vectors(batches, most, random, tick) for batches, most in parts]
        classes = np.concatenate([np.full(len(one), place) for place, one in enumerate(found[:-1])])
        return Material(np.concatenate(found[:-1]), classes.astype(np.int64), found[-1])

    def _vectors(
        self, batches: Sequence[Inputs], most: int, random: np.random.Generator, tick: Callable[[], None]
    ) -> NDArray[np.float32]:
        """Vectors (n, V, D) of the versions of at most so many images, evenly spread."""
        params = self.params
        changes = Changes(params.mirror, params.shift, params.light)
        count = sum(map(len, batches))
        chosen = set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist())
        found, place = [], 0
        for inputs in batches:
            wanted = [row for row in range(len(inputs)) if place + row in chosen]
            place += len(inputs)
            if not wanted:
                continue
            if inputs.pixels is None or inputs.backbone is None:
                raise ParameterInvalid(f"`pixels` of the inputs of method `{self.name}` must be given; got none.")
            for row in wanted:
                found.append(inputs.backbone.vectors(versions(inputs.pixels[row], params.versions, changes, random)))
                tick()
        return np.stack(found)


def _log_odds(logits: Tensor) -> Tensor:
    """Of any registered class against normal. (B, C) -> (B,)"""
    return torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]
