"""A student distilled from the backbone on the bank, and the score: how far it is from its teacher."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from index import kmeans
from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import BankTooSmall, ParameterInvalid
from models.held_out import images_alike, split
from models.methods.distillation.maths import cosine_logits, distillation_loss, divergence, soft_targets
from models.methods.distillation.network import Student, shrunk
from models.methods.distillation.specialists import combined, confusable_groups, with_dustbin
from models.network_arrays import arrays_of, loaded
from models.training import TrainingPlan, part_of, seeded, train

BANK_MIN = 10
BATCH = 16
CELLS_CLUSTERED = 20_000
_LARGEST = float(np.finfo(np.float32).max)


class DistillationParams(Params):
    """Parameters of `distillation`."""

    temperature: float = Field(default=4.0, ge=1.0, le=100.0, description="Temperature of the soft targets.")
    hard_weight: float = Field(default=0.1, ge=0.0, le=1.0, description="Weight of the hard labels in the loss.")
    prototypes: int = Field(default=32, ge=2, le=256, description="Classes: centres of the backbone's features.")
    sharpness: float = Field(default=20.0, ge=1.0, le=100.0, description="Largest logit of a class, at cosine 1.")
    stage: Literal[1, 2, 3, 4] = Field(default=3, description="Residual stage that teaches; its map gives the grid.")
    specialists: int = Field(default=0, ge=0, le=16, description="Groups of confusable classes with a head each.")
    side: int = Field(default=64, ge=16, le=224, description="Side of the images that the student sees, in pixels.")
    channels: int = Field(default=16, ge=4, le=128, multiple_of=4, description="Channels of the student's first layer.")
    images: int = Field(default=1000, ge=16, le=20_000, description="Images of the bank that are learnt from, at most.")
    steps: int = Field(default=600, ge=1, le=20_000, description="Steps of 16 images, at most.")
    learning_rate: float = Field(default=0.01, gt=0.0, le=1.0, description="Step size of the optimiser.")
    hottest_share: float = Field(
        default=0.05, gt=0.0, le=1.0, description="Share of the cells, the hottest, whose mean is the image's score."
    )


@dataclass(frozen=True, slots=True)
class FittedDistillation:
    """A teacher's classes and the student that learnt them on normal images."""

    student: Student
    prototypes: Tensor
    """(K, D) of unit length"""
    groups: tuple[tuple[int, ...], ...]
    params: DistillationParams
    method: str = "distillation"

    def score(self, inputs: Inputs) -> Scores:
        """Divergence of student and teacher at the temperature: of each cell, and the mean of an image's hottest.

        Raises:
            ParameterInvalid: no pixels or maps are given.
        """
        params = self.params
        maps = []
        for pixels, features in self._images(inputs):
            teacher = torch.log_softmax(
                cosine_logits(features, self.prototypes, params.sharpness) / params.temperature, dim=-1
            )
            with torch.no_grad():
                logits, special = self.student(shrunk(pixels, params.side))
            general = soft_targets(logits, params.temperature)
            told = combined(general, [soft_targets(one, params.temperature) for one in special], self.groups)
            maps.append(divergence(teacher, told.clamp_min(1e-30).log())[0].numpy())
        heat = np.stack(maps) if maps else np.zeros((0, *self.student.grid), np.float32)
        flat = np.sort(heat.reshape(len(heat), -1), axis=1)[:, ::-1]
        hottest = flat[:, : max(1, round(params.hottest_share * flat.shape[1]))].mean(axis=1, dtype=np.float64)
        return Scores(
            image=np.minimum(hottest, _LARGEST).astype(np.float32), pixels=np.minimum(heat, _LARGEST).astype(np.float32)
        )

    def embed(self, inputs: Inputs) -> NDArray[np.float32]:
        """The student's features, averaged over each image: what is left of the backbone in the small network.

        Shapes: -> (B, 2 * channels).
        """
        found = []
        with torch.no_grad():
            for pixels, _ in self._images(inputs):
                found.append(self.student.features(shrunk(pixels, self.params.side)).mean(dim=(2, 3))[0].numpy())
        return np.stack(found) if found else np.zeros((0, 2 * self.params.channels), np.float32)

    def export(self) -> FittedState:
        """The state from which `Distillation.restore` builds a scorer with equal scores."""
        weights = arrays_of(self.student, "student.")
        return FittedState(
            arrays={"prototypes": self.prototypes.numpy().copy(), **weights},
            values={
                "grid": list(self.student.grid),
                "groups": [list(group) for group in self.groups],
                "params": self.params.model_dump(mode="json"),
            },
        )

    def _images(self, inputs: Inputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (1, 3, H, W) and the teacher's features (1, h, w, D) of each image by itself."""
        if not len(inputs):
            return
        pixels, features = _seen(inputs, self.params.stage, self.method)
        for row in range(len(inputs)):
            yield torch.from_numpy(pixels[row : row + 1].copy()), torch.from_numpy(features[row : row + 1].copy())


class Distillation:
    """A small network taught by the backbone on the bank."""

    name: ClassVar[str] = "distillation"
    Params: ClassVar[type[Params]] = DistillationParams

    def __init__(self, params: DistillationParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedDistillation:
        """The student of this bank.

        Memory: of the images learnt from 12 side^2 bytes each and 4 K bytes a cell.

        Raises:
            BankTooSmall: fewer than 10 images.
            FitRefused: the images are all alike.
            ParameterInvalid: there are no pixels or maps, or the learning rate is too large.
        """
        params = self.params
        size = sum(len(inputs) for inputs in reference.bank)
        if size < BANK_MIN:
            raise BankTooSmall(
                f"The bank of method `{self.name}` must hold at least {BANK_MIN} normal images; got {size}."
            )
        generator = seeded(seed)
        pixels, cells, keys = self._read(reference, part_of(progress, 0.0, 0.3))
        prototypes = _prototypes(cells, params.prototypes, seed)
        if len(prototypes) < 2:
            raise images_alike(self.name, size)
        logits = self._taught(reference, prototypes, part_of(progress, 0.3, 0.5))
        soft, hard = soft_targets(logits, params.temperature), logits.argmax(dim=-1)
        groups: list[list[int]] = []
        if params.specialists:
            flat = soft.reshape(-1, soft.shape[-1]).double().numpy()
            groups = confusable_groups(flat, params.specialists, seed=seed)
        student = Student(params.channels, len(prototypes), (soft.shape[1], soft.shape[2]), groups, generator)
        parts = split(keys)
        learnt, aside = torch.from_numpy(parts.fit), torch.from_numpy(parts.held_out)

        def loss(rows: Tensor) -> Tensor:
            general, special = student(pixels[rows])
            total = distillation_loss(general, soft[rows], params.temperature, params.hard_weight, hard[rows])
            for group, told in zip(groups, special, strict=True):
                wanted = with_dustbin(soft[rows], group)
                best = wanted.argmax(dim=-1)
                total = total + distillation_loss(told, wanted, params.temperature, params.hard_weight, best)
            return total

        train(
            student,
            lambda chosen: loss(learnt[chosen]),
            rows=len(learnt),
            plan=TrainingPlan(
                epochs=max(1, params.steps // -(-len(learnt) // BATCH)),
                batch=BATCH,
                learning_rate=params.learning_rate,
                gradient_norm_max=100.0,
            ),
            generator=generator,
            method=self.name,
            held_out_loss=lambda: _mean_of(loss, aside),
            progress=part_of(progress, 0.5, 1.0),
        )
        return FittedDistillation(
            student=student.eval().requires_grad_(False),
            prototypes=prototypes,
            groups=tuple(tuple(group) for group in groups),
            params=params,
        )

    def restore(self, state: FittedState) -> FittedDistillation:
        """The scorer that was exported."""
        params = DistillationParams.model_validate(state.values["params"])
        groups = tuple(tuple(group) for group in state.values["groups"])
        height, width = state.values["grid"]
        prototypes = torch.from_numpy(state.arrays["prototypes"].copy())
        student = Student(params.channels, len(prototypes), (height, width), groups, seeded(0))
        return FittedDistillation(loaded(student, state.arrays, "student."), prototypes, groups, params)

    def _read(self, reference: Reference, progress: Progress) -> tuple[Tensor, Tensor, NDArray[np.uint64]]:
        """Small pixels, some of the teacher's cells (n, D), and keys of the images learnt from."""
        chosen = _spread([len(inputs) for inputs in reference.bank], self.params.images)
        starts = np.cumsum([0, *(len(inputs) for inputs in reference.bank)])
        most = max(1, CELLS_CLUSTERED // sum(count for _, count in chosen))  # of an image
        pixels, cells, keys = [], [], []
        for number, (place, count) in enumerate(chosen, start=1):
            seen, maps = _seen(reference.bank[place], self.params.stage, self.name)
            pixels.append(shrunk(torch.from_numpy(seen[:count].copy()), self.params.side))
            flat = maps[:count].reshape(count, -1, maps.shape[-1])
            cells.append(torch.from_numpy(flat[:, :: -(-flat.shape[1] // most)].reshape(-1, flat.shape[-1]).copy()))
            keys.append(reference.keys[starts[place] : starts[place] + count])
            progress(number, len(chosen))
        return torch.cat(pixels), torch.cat(cells), np.concatenate(keys)

    def _taught(self, reference: Reference, prototypes: Tensor, progress: Progress) -> Tensor:
        """The teacher's logits (n, h, w, K) of the same images: read anew, since features take far more room."""
        chosen = _spread([len(inputs) for inputs in reference.bank], self.params.images)
        logits = []
        for number, (place, count) in enumerate(chosen, start=1):
            maps = reference.bank[place].maps[self.params.stage]
            logits.append(cosine_logits(torch.from_numpy(maps[:count].copy()), prototypes, self.params.sharpness))
            progress(number, len(chosen))
        return torch.cat(logits)


def _mean_of(loss: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """A mean loss over many rows, a batch at a time."""
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return torch.stack([loss(some) * len(some) for some in parts]).sum() / len(rows)


def _spread(sizes: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Which batches to read and how many images of each, `most` in all, spread evenly over the bank."""
    wanted = min(len(sizes), -(-most // max(1, *sizes))) if sizes else 0
    found, left = [], most
    for place in np.unique(np.linspace(0, len(sizes) - 1, wanted).round().astype(int)).tolist():
        count = min(sizes[place], left)
        left -= count
        if count:
            found.append((place, count))
    return found


def _seen(inputs: Inputs, stage: int, method: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    pixels = inputs.pixels
    if pixels is None or stage not in inputs.maps:
        missing = "pixels" if pixels is None else f"maps of stage {stage}"
        raise ParameterInvalid(f"`{missing}` of the inputs of method `{method}` must be given; got none.")
    return pixels, inputs.maps[stage]


def _prototypes(cells: Tensor, count: int, seed: int) -> Tensor:
    """Centres of the backbone's cells, of unit length; one alone where all cells are alike."""
    unit = torch.nn.functional.normalize(cells, dim=-1)
    if not np.ptp(unit.numpy(), axis=0).any():
        return unit[:1]
    centres, _ = kmeans(unit.numpy(), count, seed=seed)
    return torch.nn.functional.normalize(torch.from_numpy(np.unique(centres, axis=0)), dim=-1)
