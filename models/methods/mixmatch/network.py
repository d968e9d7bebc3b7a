"""The head on vectors, and its training on labelled and unlabelled images together."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.contract import Progress
from models.methods.mixmatch.maths import cross_entropy, guessed_labels, squared_error
from models.mixing import mixed, mixing_shares
from models.training import TrainingPlan, mlp, train

STEPS_PER_EPOCH = 10
"""At least so many."""


class Head(nn.Module):
    """Logits of classes for a vector, which is standardised first."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, hidden: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.layers = mlp([width, hidden, hidden, classes], generator)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) -> (B, C)"""
        logits: Tensor = self.layers((rows - self.mean) / self.scale)
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Vectors of the versions of all images of a fit."""

    labelled: NDArray[np.float32]
    """(N, V, D)"""
    classes: NDArray[np.int64]
    """(N,) numbers from 0 to C - 1"""
    unlabelled: NDArray[np.float32]
    """(M, V, D)"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What MixMatch leaves open."""

    guesses: int
    """K, versions of an unlabelled image over which its label is guessed."""
    temperature: float
    alpha: float
    """Of MixUp; 0 turns it off."""
    unlabelled_weight: float
    """Of the squared error at the end of its ramp; 0 learns from labelled images only."""
    ramp: float
    """Share of the steps over which that weight rises from 0."""


def train_head(
    head: Head,
    material: Material,
    recipe: Recipe,
    plan: TrainingPlan,
    *,
    random: np.random.Generator,
    generator: torch.Generator,
    method: str,
    progress: Progress | None = None,
) -> None:
    """Train the head in place: each step takes as many labelled images, classes in turn, as unlabelled ones.

    Source: Berthelot et al. 2019, arXiv:1905.02249, algorithm 1.
    """
    labelled, unlabelled = torch.from_numpy(material.labelled), torch.from_numpy(material.unlabelled)
    everything = torch.cat([labelled.flatten(0, 1), unlabelled.flatten(0, 1)])
    with torch.no_grad():
        head.mean.copy_(everything.mean(dim=0))
        head.scale.copy_((everything - head.mean).square().mean().sqrt().clamp_min(1e-30))
    n_classes = int(material.classes.max()) + 1
    targets = nn.functional.one_hot(torch.from_numpy(material.classes), n_classes).float()
    by_class = np.argsort(material.classes, kind="stable")
    counts = np.bincount(material.classes)
    firsts = np.cumsum(counts) - counts
    n_versions, steps = labelled.shape[1], 0
    # A small pool is gone through several times in what counts as one pass.
    rows = len(unlabelled) * max(1, -(-STEPS_PER_EPOCH * plan.batch // len(unlabelled)))
    total = plan.epochs * -(-rows // plan.batch)

    def loss(chosen: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        places = chosen % len(unlabelled)
        size = len(places)
        # Labelled images: classes in turn, so that five examples count as much as the whole bank.
        turn = random.permutation(np.arange(size) % n_classes)
        mine = by_class[firsts[turn] + (random.random(size) * counts[turn]).astype(np.int64)]
        x = labelled[mine, random.integers(0, n_versions, size)]
        drawn = np.argsort(random.random((size, n_versions)), axis=1)[:, : recipe.guesses]
        u = unlabelled[places[:, None], torch.from_numpy(drawn)]
        guesses = guessed_labels(head, u, recipe.temperature)
        inputs = torch.cat([x, u.flatten(0, 1)])
        wanted = torch.cat([targets[mine], guesses.repeat_interleave(recipe.guesses, dim=0)])
        shares = torch.from_numpy(mixing_shares(len(inputs), recipe.alpha, random))
        partners = torch.from_numpy(random.permutation(len(inputs)))
        logits = head(mixed(inputs, inputs[partners], shares))
        wanted = mixed(wanted, wanted[partners], shares)
        weight = recipe.unlabelled_weight * min(1.0, steps / max(1.0, recipe.ramp * total))
        supervised = cross_entropy(logits[:size], wanted[:size])
        return supervised + weight * squared_error(logits[size:], wanted[size:])

    train(head, loss, rows=rows, plan=plan, generator=generator, method=method, progress=progress)
