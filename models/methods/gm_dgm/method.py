"""Minus the lower bound of an image's log density under a mixture of known and unknown kinds."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import FitRefused
from models.float32 import as_float32
from models.held_out import HELD_OUT_SHARE, BankRows, bank_rows, images_alike, stacked_vectors
from models.methods.gm_dgm.network import GenerativeModel, bound, loss
from models.network_arrays import arrays_of, loaded
from models.training import TrainingPlan, each_alone, part_of, seeded, train

BANK_MIN = 16
STEPS_PER_EPOCH = 20  # at least: a small collection is gone through several times before it is judged


class Evidence(StrEnum):
    """Which kinds count against an anomaly."""

    BANK = "bank"
    ALL = "all"


class Latent(StrEnum):
    """What the latents are before anything is seen."""

    MIXTURE = "mixture"
    SINGLE = "single"


class GmDgmParams(Params):
    """Parameters of `gm_dgm`."""

    normal_kinds: int = Field(default=4, ge=1, le=32, description="Kinds that normal images may be of.")
    extra_kinds: int = Field(
        default=6, ge=0, le=32, description="Kinds kept free for what the unlabelled pool holds and nobody registered."
    )
    evidence: Evidence = Field(
        default=Evidence.BANK,
        description="`bank`: an image that only other kinds explain is anomalous; `all`: it is not.",
    )
    latent: Latent = Field(
        default=Latent.MIXTURE,
        description="`mixture`: a Gaussian per kind; `single`: one for all (model M2), for comparison.",
    )
    latents: int = Field(default=16, ge=1, le=128, description="Width of the latent space, in dimensions.")
    hidden: int = Field(default=128, ge=8, le=1024, description="Width of the hidden layers.")
    label_weight: float = Field(
        default=0.1,
        ge=0.0,
        le=100.0,
        description="Weight of the classification term, times the images in all over those of one label.",
    )
    draws: int = Field(default=8, ge=1, le=64, description="Noises per score, the same for every image.")
    epochs: int = Field(default=80, ge=1, le=1000, description="Passes over everything, at most.")
    steps: int = Field(
        default=2500, ge=20, le=100_000, description="Steps of 128 images in all, at most, beyond a first pass."
    )
    learning_rate: float = Field(default=2e-3, gt=0.0, le=1.0, description="Step of the optimiser (Adam).")


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All images of a fit in one array, and what is known of the kind of each."""

    rows: NDArray[np.float32]
    """(N, D)"""
    allowed: NDArray[np.bool_]
    """(N, K)"""
    label_weights: NDArray[np.float64]
    """(N,)"""
    is_held_out: NDArray[np.bool_]
    """(N,)"""


@dataclass(frozen=True, slots=True, eq=False)
class FittedGmDgm:
    """The trained model; its first kinds are the bank's, then come the labels, then the free ones."""

    net: GenerativeModel
    noise: Tensor
    """(R, 1, 1, Z)"""
    params: GmDgmParams
    labels: tuple[str, ...]
    method: str = "gm_dgm"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The K kinds by name."""
        # A label holds no parentheses, so these names are never one.
        normal = (f"(normal {place + 1})" for place in range(self.params.normal_kinds))
        return (*normal, *self.labels, *(f"(kind {place + 1})" for place in range(self.params.extra_kinds)))

    def score(self, inputs: Inputs) -> Scores:
        """Minus the bound of log p(x, y is normal), or of log p(x), in nats; q(y | x) as class probabilities.

        The tag `cluster` names the likeliest kind; the term `bounds` (B, K) holds the bound of log p(x, y) of each.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        rows = stacked_vectors([inputs], method=self.method, width=len(self.net.mean))
        kinds = self.kinds
        counted = torch.zeros(1, len(kinds), dtype=torch.bool)
        counted[:, : self.params.normal_kinds if self.params.evidence is Evidence.BANK else len(kinds)] = True
        noise = self.noise.expand(-1, 1, len(kinds), -1)

        def of_row(row: Tensor) -> tuple[Tensor, ...]:
            standardised = self.net.standardised(row)
            joint, log_shares = self.net.joint(standardised, noise), self.net.log_shares(standardised)
            return -bound(joint, log_shares, counted)[0], joint, log_shares.exp()

        parts = [torch.zeros(0), torch.zeros(0, len(kinds)), torch.zeros(0, len(kinds))]
        if len(rows):
            parts = list(each_alone(of_row, torch.from_numpy(rows).double()))
        image, bounds, shares = (as_float32(part.numpy()) for part in parts)
        return Scores(
            image=image,
            probabilities={name: shares[:, place] for place, name in enumerate(kinds)},
            terms={"bounds": bounds},
            tags={"cluster": [kinds[place] for place in shares.argmax(axis=1)]},
        )

    def export(self) -> FittedState:
        """The state from which `GmDgm.restore` builds a scorer with equal scores."""
        arrays = arrays_of(self.net, "net.")
        arrays["noise"] = self.noise.numpy().copy()
        return FittedState(
            arrays=arrays, values={"params": self.params.model_dump(mode="json"), "labels": list(self.labels)}
        )


class GmDgm:
    """A deep generative model with a Gaussian in latent space for every kind, named or not."""

    name: ClassVar[str] = "gm_dgm"
    Params: ClassVar[type[Params]] = GmDgmParams

    def __init__(self, params: GmDgmParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedGmDgm:
        """The model of the bank, the registered classes and the unlabelled pool together.

        Raises:
            BankTooSmall: fewer than 16 images in the bank.
            FitRefused: there are no labels, no unlabelled images, or the images are all alike.
            ParameterInvalid: there are no vectors, or the learning rate is too large.
            WidthMismatch, NotFinite: the vectors cannot be used.
        """
        params = self.params
        labels = tuple(sorted(reference.labels))
        bank = bank_rows(reference, method=self.name, bank_min=BANK_MIN)
        kinds = params.normal_kinds + len(labels) + params.extra_kinds
        material = self._material(bank, reference, labels, kinds)
        generator = seeded(seed)
        net = _model(params, material.rows.shape[1], kinds, generator)
        train_model(net, material, params, generator, part_of(progress, 0.0, 1.0))
        noise = torch.randn((params.draws, 1, 1, params.latents), generator=generator, dtype=torch.float64)
        return FittedGmDgm(net.double().eval().requires_grad_(False), noise, params, labels)

    def restore(self, state: FittedState) -> FittedGmDgm:
        """The scorer that was exported."""
        params = GmDgmParams.model_validate(state.values["params"])
        labels = tuple(state.values["labels"])
        kinds = params.normal_kinds + len(labels) + params.extra_kinds
        net = _model(params, len(state.arrays["net.mean"]), kinds, seeded(0)).double()
        noise = torch.from_numpy(state.arrays["noise"].copy())
        return FittedGmDgm(loaded(net, state.arrays, "net."), noise, params, labels)

    def _material(self, bank: BankRows, reference: Reference, labels: tuple[str, ...], kinds: int) -> Material:
        params, width = self.params, bank.vectors.shape[1]
        pool = stacked_vectors(reference.unlabelled, method=self.name, width=width)
        classes = [stacked_vectors(reference.labels[label], method=self.name, width=width) for label in labels]
        if not len(pool) or not sum(map(len, classes)):
            raise FitRefused(
                f"The collection of method `{self.name}` must hold classes with examples and unlabelled images; "
                f"got {sum(map(len, classes))} examples and {len(pool)} unlabelled images."
            )
        groups = [bank.vectors, *classes, pool]
        rows = np.concatenate(groups)
        if not np.ptp(bank.vectors, axis=0).any():
            raise images_alike(self.name, len(bank.ids))
        starts = np.cumsum([0, *map(len, groups)])
        allowed, weights = np.zeros((len(rows), kinds), bool), np.zeros(len(rows))
        # Every label has the same say, whether it has three images or the whole bank.
        for place, (start, stop) in enumerate(pairwise(starts[:-1])):
            first = 0 if place == 0 else params.normal_kinds + place - 1
            allowed[start:stop, first : params.normal_kinds if place == 0 else first + 1] = True
            weights[start:stop] = params.label_weight * len(rows) / (len(groups) - 1) / max(stop - start, 1)
        allowed[starts[-2] :] = True
        pool_ids = np.concatenate([inputs.ids for inputs in reference.unlabelled])
        examples = np.zeros(int(starts[-2] - starts[1]), bool)
        return Material(rows, allowed, weights, np.concatenate([bank.is_held_out, examples, _held_out(pool_ids)]))


def train_model(
    net: GenerativeModel, material: Material, params: GmDgmParams, generator: torch.Generator, progress: Progress
) -> None:
    """Train the model in place on what is not held out, until what is held out gains no more."""
    rows, allowed = torch.from_numpy(material.rows), torch.from_numpy(material.allowed)
    weights = torch.from_numpy(material.label_weights).float()
    aside = torch.from_numpy(material.is_held_out)
    with torch.no_grad():
        net.mean.copy_(rows[~aside].mean(dim=0))
        net.scale.copy_((rows[~aside] - net.mean).square().mean().sqrt().clamp_min(1e-30))
    rows = net.standardised(rows)
    shape = (allowed.shape[1], params.latents)
    learnt, known, counted = rows[~aside], allowed[~aside], weights[~aside]
    asked = torch.randn((1, int(aside.sum()), *shape), generator=generator)

    def loss_of(chosen: Tensor) -> Tensor:
        noise = torch.randn((1, len(chosen), *shape), generator=generator)
        chosen = chosen % len(learnt)
        return loss(net, learnt[chosen], known[chosen], counted[chosen], noise)

    batch = min(128, len(learnt))
    rows_of_epoch = max(len(learnt), STEPS_PER_EPOCH * batch // len(learnt) * len(learnt))
    train(
        net,
        loss_of,
        rows=rows_of_epoch,
        plan=TrainingPlan(
            epochs=max(1, min(params.epochs, params.steps // -(-rows_of_epoch // batch))),
            batch=batch,
            learning_rate=params.learning_rate,
            patience=12,
            gradient_norm_max=100.0,
        ),
        generator=generator,
        method=GmDgm.name,
        held_out_loss=lambda: loss(net, rows[aside], allowed[aside], weights[aside], asked),
        progress=progress,
    )


def _held_out(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """About 15 % of these images, by their ids alone."""
    hashed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    is_aside: NDArray[np.bool_] = (hashed >> np.uint64(32)) < np.uint64(round(HELD_OUT_SHARE * 2**32))
    return is_aside


def _model(params: GmDgmParams, width: int, kinds: int, generator: torch.Generator) -> GenerativeModel:
    return GenerativeModel(
        width=width,
        hidden=params.hidden,
        latents=params.latents,
        kinds=kinds,
        mixture=params.latent is Latent.MIXTURE,
        generator=generator,
    )
