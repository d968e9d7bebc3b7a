"""One training of one head: batches of a few images of a few classes, one loop for every method."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.distances import unit_rows
from models.contract import Progress
from models.projection import Projection
from models.similarity.labelled import Labelled
from models.similarity.losses import Loss, Miner, batch_loss
from models.similarity.network import HeadNetwork
from models.similarity.retrieval import figures
from models.training import TrainingPlan, seeded, train

BATCH_CLASSES = 8
BATCH_IMAGES = 4
"""Of each class, drawn with repetition where it has fewer."""
STEPS_MIN, STEPS_MAX = 10, 100
"""Batches of an epoch."""
VALIDATED_MAX = 1000
"""Images that are compared with one another after each epoch."""


class Division(Protocol):
    """Who learns from which images, where not everybody learns from all; asked before each batch."""

    def renew(self, epoch: int, embeddings: NDArray[np.float32]) -> None:
        """Divide anew, where it is time, by the whole embedding (N, E) of everything that is learnt from."""
        ...

    def turn(self, epoch: int) -> tuple[NDArray[np.int64] | None, slice]:
        """Rows that the next batch is drawn from, None for all, and the columns of the embedding that it moves."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one training is told."""

    loss: Loss
    miner: Miner
    settings: dict[str, float]
    width: int
    hidden: int
    epochs: int
    method: str


@dataclass(frozen=True, slots=True)
class Trained:
    """One head, from the epoch that did best on the validation classes; from the last where there are none."""

    projection: Projection
    best_epoch: int
    map_at_r: float | None
    """On the validation classes, at that epoch."""


class Sampler:
    """Draws batches of a few classes from some rows, by a generator of its own."""

    def __init__(self, classes: NDArray[np.int64], generator: torch.Generator) -> None:
        self._classes = classes
        self._generator = generator
        self._known: dict[bytes | None, list[NDArray[np.int64]]] = {}

    def draw(self, rows: NDArray[np.int64] | None) -> Tensor:
        """Row numbers of one batch."""
        per_class = self._per_class(rows)
        order = torch.randperm(len(per_class), generator=self._generator)[:BATCH_CLASSES].tolist()
        chosen = []
        for place in order:
            members = per_class[place]
            if len(members) >= BATCH_IMAGES:
                picked = torch.randperm(len(members), generator=self._generator)[:BATCH_IMAGES]
            else:
                picked = torch.randint(len(members), (BATCH_IMAGES,), generator=self._generator)
            chosen.append(torch.from_numpy(members)[picked])
        return torch.cat(chosen)

    def _per_class(self, rows: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
        key = None if rows is None else rows.tobytes()
        if key not in self._known:
            if len(self._known) > BATCH_CLASSES * BATCH_IMAGES:
                self._known.clear()
            among = np.arange(len(self._classes)) if rows is None else rows
            classes = self._classes[among]
            self._known[key] = [among[classes == one] for one in np.unique(classes)]
        return self._known[key]


def train_head(
    learnt: Labelled,
    validated: Labelled | None,
    recipe: Recipe,
    *,
    seed: int,
    division: Division | None = None,
    progress: Progress | None = None,
) -> Trained:
    """A head that brings images of one class together, and others apart.

    Raises:
        ParameterInvalid: the loss is not finite.
    """
    generator = seeded(seed)
    network = HeadNetwork(learnt.vectors, recipe.width, recipe.hidden, generator)
    rows, classes = torch.from_numpy(unit_rows(learnt.vectors)), torch.from_numpy(learnt.classes)
    value_of = batch_loss(recipe.loss, recipe.miner, recipe.settings)
    sampler = Sampler(learnt.classes, generator)
    batch = BATCH_CLASSES * BATCH_IMAGES
    steps = min(STEPS_MAX, max(STEPS_MIN, math.ceil(len(rows) / batch)))
    taken = 0

    def loss_of(_: Tensor) -> Tensor:
        nonlocal taken
        epoch, step = divmod(taken, steps)
        taken += 1
        among, columns = None, slice(None)
        if division is not None:
            if step == 0:
                with torch.no_grad():
                    division.renew(epoch, network(rows).numpy())
            among, columns = division.turn(epoch)
        chosen = sampler.draw(among)
        return value_of(network(rows[chosen])[:, columns], classes[chosen])

    checked = None if validated is None else _validation_error(network, validated)
    report = train(
        network,
        loss_of,
        rows=steps * batch,
        plan=TrainingPlan(
            epochs=recipe.epochs,
            batch=batch,
            learning_rate=recipe.settings["learning_rate"],
            patience=recipe.epochs,  # every trial gets the same budget; its best epoch counts
            gradient_norm_max=10.0,
        ),
        generator=generator,
        method=recipe.method,
        held_out_loss=checked,
        progress=progress,
    )
    best = None if validated is None else 1.0 - min(report.held_out_losses)
    return Trained(Projection([network.head()]), report.best_epoch, best)


def _validation_error(network: HeadNetwork, validated: Labelled) -> Callable[[], Tensor]:
    """1 - MAP@R of the validation classes by the network as it is when asked."""
    rows = torch.from_numpy(unit_rows(validated.vectors))

    def error() -> Tensor:
        found = figures(network(rows).numpy(), validated.classes, most=VALIDATED_MAX)
        return torch.tensor(1.0 - found.map_at_r)

    return error


def side_by_side(trained: Sequence[Trained]) -> Projection:
    """The heads of several trainings as one embedding."""
    return Projection([head for one in trained for head in one.projection.heads])
