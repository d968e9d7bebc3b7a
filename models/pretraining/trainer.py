"""One training run: seeded, logged, and resumed where it stopped.

Nothing random is carried from step to step. The order of an epoch follows from (seed, epoch), a step's views
from (seed, step); so a run that was stopped, or killed and taken up at its last checkpoint, goes on exactly as
if nothing had happened. Under a StepBudget the result is the same bit for bit, on one machine with one number
of threads; under a TimeBudget it depends on how fast the machine was.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # rule-skip: no-pickle only its exception; torch unpickles nothing
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from torch import Tensor

from models.backbones.resnet import BACKBONES
from models.mixing import mixed, mixing_shares
from models.pretraining.augment import DEFAULT_AUGMENTATION, Augmentation, augmented
from models.pretraining.data import TrainingSet, open_training_set
from models.pretraining.division import Division, Lesson
from models.pretraining.errors import CheckpointMismatch, TrainingDiverged, TrainingSetInvalid
from models.pretraining.losses import (
    centralize_gradients,
    consistency_loss,
    feature_loss,
    soft_target_loss,
    worst_of,
)
from models.pretraining.schedule import Budget, image_side, learning_rate
from models.pretraining.student import Student, seeded_student
from models.pretraining.targets import TeacherTargets, open_targets
from models.runtime import use_threads

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"

# Where a run keeps its files and how often it writes them changes nothing it learns; the budget may be set
# anew when a run is taken up.
_NOT_THE_RECIPE = frozenset(
    {"training_set", "targets", "run_folder", "budget", "threads", "checkpoint_every_s", "log_every_steps"}
)


class PretrainingConfig(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_set: Path = Field(description="Folder of a packed training set.")
    targets: Path | None = Field(default=None, description="Folder of a teacher's answers to that set.")
    run_folder: Path = Field(description="Folder of the checkpoint and the log.")
    budget: Budget = Field(description="Steps or seconds of the whole run.")
    seed: int = Field(ge=0, description="Decides first weights, order and views.")

    backbone: str = Field(default="resnet18", description="torchvision's name of the architecture.")
    batch: int = Field(default=64, ge=2, le=4096, description="Images in a step.")
    sides: tuple[tuple[float, int], ...] = Field(
        default=((0.35, 40), (0.8, 48), (1.0, 64)),
        description="Sides of the views in pixels, each until a share of the budget is spent.",
    )
    augmentation: Augmentation = Field(
        default=DEFAULT_AUGMENTATION, description="How far views depart from their images."
    )

    learning_rate: float = Field(default=0.08, gt=0, description="Its peak.")
    warmup: float = Field(default=0.12, gt=0, lt=1, description="Share of the budget until the peak.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Nesterov momentum.")
    weight_decay: float = Field(default=5e-4, ge=0, description="On weights of two or more dimensions.")

    label_weight: float = Field(default=0.5, ge=0, description="Weight of the classes' cross-entropy.")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Share of a label spread over all classes.")
    soft_weight: float = Field(default=1.0, ge=0, description="Weight of the teacher's soft targets; needs targets.")
    temperature: float = Field(default=3.0, gt=0, description="Temperature of the soft targets.")
    feature_weight: float = Field(default=4.0, ge=0, description="Weight of the teacher's features; needs targets.")
    copies: int = Field(default=1, ge=1, le=16, description="Views of an image in a step.")
    copies_counted: Literal["worst", "all"] = Field(default="worst", description="Which views of an image count.")
    consistency_weight: float = Field(
        default=0.0, ge=0, description="Weight of the difference between what is said of an image's views."
    )
    consistency_temperature: float = Field(
        default=0.5, gt=0, le=1, description="Sharpens what they are held to; 1 leaves it as it is."
    )
    mixing: float = Field(
        default=0.0, ge=0, le=10, description="Of MixUp's Beta distribution: images are mixed in pairs; 0: not."
    )
    learners: int = Field(
        default=1, ge=1, le=64, description="Slices of the vector, each of which learns its own classes apart; 1: none."
    )
    divided: float = Field(default=0.5, ge=0, le=1, description="Share of the budget until they learn together.")
    division_epochs: int = Field(default=2, ge=1, description="Passes over the images before classes change learners.")
    is_gradient_centralized: bool = Field(default=True, description="Take the mean from convolutions' gradients.")

    average_decay: float = Field(default=0.98, ge=0, lt=1, description="Of the running average of the weights.")
    average_every_steps: int = Field(default=10, ge=1, description="Steps between updates of that average.")

    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where the network runs.")
    is_bfloat16: bool = Field(default=False, description="Compute in bfloat16 where torch deems it safe.")
    threads: int = Field(default=2, ge=1, le=1024, description="Threads of the processor.")
    checkpoint_every_s: float = Field(default=180.0, ge=0, description="Seconds between checkpoints; 0 is each step.")
    log_every_steps: int = Field(default=20, ge=1, description="Steps a line of the log stands for.")

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"must be one of {', '.join(BACKBONES)}")
        return name

    @field_validator("sides")
    @classmethod
    def _ascending(cls, sides: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        shares = [share for share, _ in sides]
        if not sides or shares != sorted(set(shares)) or shares[-1] != 1.0 or shares[0] <= 0:
            raise ValueError("must be shares above 0, ascending, the last one 1")
        if min(side for _, side in sides) < 16:
            raise ValueError("must be sides of at least 16 pixels")
        return sides

    @field_validator("consistency_weight")
    @classmethod
    def _views_to_compare(cls, weight: float, others: ValidationInfo) -> float:
        if weight and others.data.get("copies") == 1:
            raise ValueError(f"must be 0 where `copies` is 1; got {weight:g}")
        return weight

    def recipe(self) -> dict[str, Any]:
        """What decides the result apart from the data and the budget, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(_NOT_THE_RECIPE))


@dataclass(frozen=True, slots=True, eq=False)
class PretrainingResult:
    """Where a run stands when it returns."""

    is_finished: bool  # False: it was asked to stop
    steps: int
    elapsed_s: float  # over all resumptions
    images: int  # views learnt from
    weights: dict[str, Tensor]  # of the backbone, by torchvision's names
    average: dict[str, Tensor]  # running average of the same


def pretrain(
    config: PretrainingConfig,
    *,
    clock: Callable[[], float],
    should_stop: Callable[[], bool] = lambda: False,
) -> PretrainingResult:
    """The trained backbone, or where it stood when `should_stop` became true.

    A run that finds its checkpoint goes on from it. `should_stop` is asked before each step; then, at the end
    of the budget and every `checkpoint_every_s`, the checkpoint is replaced in one move.

    Units: `clock` counts seconds from any start and never runs backwards.

    Raises:
        TrainingSetInvalid: the packed set or the targets are not what the configuration needs.
        CheckpointMismatch: the folder holds the checkpoint of another recipe or another training set.
        TrainingDiverged: the loss is not finite; the last checkpoint is kept.
    """
    run = _Run(config, clock)
    while run.progress() < 1:
        if should_stop():
            run.save()
            return run.result(is_finished=False)
        run.advance()
    run.save()
    return run.result(is_finished=True)


def read_checkpoint(run_folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run: tensors and numbers only.

    Raises:
        CheckpointMismatch: there is none, or it is damaged.
    """
    path = run_folder / CHECKPOINT
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError, LookupError) as error:
        raise CheckpointMismatch(
            f"`run_folder` of a training run must hold a whole {CHECKPOINT}; got {path}: {error}."
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointMismatch(f"`{CHECKPOINT}` of a training run must hold named parts; got {path}.")
    return loaded


def backbone_weights(student_weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's share of a checkpoint's `student` or `average`, by torchvision's names."""
    return {
        name.removeprefix("body."): tensor
        for name, tensor in student_weights.items()
        if name.startswith("body.") and not name.endswith("num_batches_tracked")
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """For each image of a step the one it is mixed with, and the share that each view keeps of itself."""

    mates: NDArray[np.int64]
    shares: Tensor


class _Run:
    """State of one run between two steps."""

    def __init__(self, config: PretrainingConfig, clock: Callable[[], float]) -> None:
        self.config = config
        self._clock = clock
        self._set = open_training_set(config.training_set)
        self._targets = _needed_targets(config, self._set)
        if len(self._set) < config.batch:
            raise TrainingSetInvalid(
                f"`batch` of a training run must be at most the {len(self._set)} images; got {config.batch}."
            )
        use_threads(config.threads)
        self._student = self._new_student()
        self._average = copy.deepcopy(self._student)
        self._division = self._new_division()
        self._optimizer = _optimizer(self._student, config)
        self._identity = _identity(config, self._set, self._targets)
        self.step = 0
        self._elapsed_before = 0.0
        self._order: tuple[int, NDArray[np.int64]] | None = None
        config.run_folder.mkdir(parents=True, exist_ok=True)
        if (config.run_folder / CHECKPOINT).exists():
            self._restore()
        self._started = self._checkpointed = self._logged = clock()
        self._sums: dict[str, float] = {}
        self._summed = 0

    def progress(self) -> float:
        return self.config.budget.progress(self.step, self._elapsed())

    def advance(self) -> None:
        config, progress = self.config, self.progress()
        lesson = self._lesson(progress)
        pairs = self._pairs(len(lesson.rows)) if config.mixing else None
        side = image_side(progress, config.sides)
        rate = learning_rate(progress, peak=config.learning_rate, warmup=config.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        views = self._views(lesson.rows, side, pairs)
        self._student.train()
        with torch.autocast(config.device, torch.bfloat16, enabled=config.is_bfloat16):
            answers = self._student(views, lesson.columns)
        terms, right = self._terms(answers, lesson, pairs)
        losses = sum(terms.values(), torch.zeros(len(views), device=config.device))
        loss = worst_of(losses, config.copies) if config.copies_counted == "worst" else losses.mean()
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(f"`loss` of a training run must be finite; got {loss.item()} at step {self.step}.")
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if config.is_gradient_centralized:
            centralize_gradients(self._student.parameters())
        self._optimizer.step()
        self.step += 1
        if self.step % config.average_every_steps == 0:
            self._update_average()
        self._note({name: term.mean().item() for name, term in terms.items()} | {"right": right}, side, rate)
        if self._clock() - self._checkpointed >= config.checkpoint_every_s:
            self.save()

    def save(self) -> None:
        """The checkpoint, complete or not at all."""
        self._checkpointed = self._clock()
        path = self.config.run_folder / CHECKPOINT
        part = path.with_suffix(".part")
        torch.save(
            {
                "identity": self._identity,
                "step": self.step,
                "elapsed_s": self._elapsed(),
                "student": self._student.state_dict(),
                "average": self._average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "learner_of": None if self._division is None else self._division.state(),
            },
            part,
        )
        part.replace(path)

    def result(self, *, is_finished: bool) -> PretrainingResult:
        self._log({"finished": is_finished, "step": self.step, "elapsed_s": round(self._elapsed(), 1)})
        return PretrainingResult(
            is_finished=is_finished,
            steps=self.step,
            elapsed_s=self._elapsed(),
            images=self.step * self.config.batch,
            weights=self._student.backbone_weights(),
            average=self._average.backbone_weights(),
        )

    def _restore(self) -> None:
        saved = read_checkpoint(self.config.run_folder)
        if saved.get("identity") != self._identity:
            raise CheckpointMismatch(
                "`run_folder` of a training run must be empty or hold a checkpoint of the same recipe and "
                f"data; got another one in {self.config.run_folder}."
            )
        try:
            self._student.load_state_dict(saved["student"])
            self._average.load_state_dict(saved["average"])
            self._optimizer.load_state_dict(saved["optimizer"])
            if self._division is not None:
                self._division.restore(saved["learner_of"])
            self.step, self._elapsed_before = int(saved["step"]), float(saved["elapsed_s"])
        except (LookupError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointMismatch(
                f"`{CHECKPOINT}` of a training run must hold a whole state; got {error}."
            ) from error
        self._started = self._clock()
        self._log({"resumed_at": self.step, "elapsed_s": round(self._elapsed_before, 1)})

    def _elapsed(self) -> float:
        return self._elapsed_before + self._clock() - self._started

    def _new_student(self) -> Student:
        targets = self._targets
        return seeded_student(
            self.config.backbone,
            classes=len(self._set.classes),
            logits=targets.logits.shape[1] if targets is not None and self.config.soft_weight else 0,
            features=targets.features.shape[1] if targets is not None and self.config.feature_weight else 0,
            seed=self.config.seed,
        ).to(self.config.device)

    def _new_division(self) -> Division | None:
        config, classes = self.config, len(self._set.classes)
        if config.learners == 1:
            return None
        if config.learners > classes:
            raise TrainingSetInvalid(
                f"`learners` of a training run must be at most the {classes} classes; got {config.learners}."
            )
        return Division(self._set.labels, classes, config.learners, self._student.label.in_features, config.seed)

    def _rows(self) -> NDArray[np.int64]:
        """Images of the next step; an epoch's remainder that fills no batch is left out."""
        steps = len(self._set) // self.config.batch
        epoch, place = divmod(self.step, steps)
        if self._order is None or self._order[0] != epoch:
            shuffled = np.random.default_rng([self.config.seed, epoch]).permutation(len(self._set))
            self._order = (epoch, shuffled)
        return self._order[1][place * self.config.batch : (place + 1) * self.config.batch]

    def _lesson(self, progress: float) -> Lesson:
        """What the next step learns: all classes by the whole vector, or some by a slice of it."""
        config, division = self.config, self._division
        if division is None or progress >= config.divided:
            return Lesson(self._rows(), np.arange(len(self._set.classes)), slice(None))
        if division.learner_of is None or self.step % (config.division_epochs * (len(self._set) // config.batch)) == 0:
            division.renew(self._student.label.weight.detach().float().cpu().numpy())
        return division.lesson(self.step, config.batch)

    def _pairs(self, count: int) -> _Pairs:
        random = np.random.default_rng([self.config.seed, self.step, 1])  # the order of an epoch has two numbers
        shares = mixing_shares(count, self.config.mixing, random)
        return _Pairs(random.permutation(count), self._for_copies(torch.from_numpy(shares)))

    def _views(self, rows: NDArray[np.int64], side: int, pairs: _Pairs | None) -> Tensor:
        """Views of the images, all of the first copy first."""
        config, generator = self.config, _step_generator(self.config.seed, self.step)
        pixels = torch.from_numpy(self._set.images[rows]).to(config.device)
        copies = [augmented(pixels, side, config.augmentation, generator) for _ in range(config.copies)]
        views = torch.cat(copies)
        return views if pairs is None else mixed(views, torch.cat([one[pairs.mates] for one in copies]), pairs.shares)

    def _terms(
        self, answers: tuple[Tensor, Tensor | None, Tensor | None], lesson: Lesson, pairs: _Pairs | None
    ) -> tuple[dict[str, Tensor], float]:
        """Weighted losses of each view by name, and the share of views given their own class."""
        config = self.config
        scores, soft, guesses = (None if part is None else part.float() for part in answers)
        assert scores is not None
        scores = scores[:, lesson.classes]
        terms, right = self._terms_of(scores, soft, guesses, lesson.rows, lesson.classes)
        if pairs is not None:
            of_mates, _ = self._terms_of(scores, soft, guesses, lesson.rows[pairs.mates], lesson.classes)
            terms = {name: mixed(term, of_mates[name], pairs.shares) for name, term in terms.items()}
        if config.consistency_weight:
            away = consistency_loss(scores, config.copies, config.consistency_temperature)
            terms["consistency"] = config.consistency_weight * away
        return terms, right

    def _terms_of(
        self,
        scores: Tensor,
        soft: Tensor | None,
        guesses: Tensor | None,
        rows: NDArray[np.int64],
        classes: NDArray[np.int64],
    ) -> tuple[dict[str, Tensor], float]:
        """The same if the views were of these images, which are of these classes."""
        config = self.config
        labels = self._for_copies(torch.from_numpy(np.searchsorted(classes, self._set.labels[rows])))
        terms = {
            "label": config.label_weight
            * functional.cross_entropy(scores, labels, label_smoothing=config.label_smoothing, reduction="none")
        }
        if self._targets is not None and soft is not None:
            logits = self._for_copies(torch.from_numpy(self._targets.logits[rows]).float())
            terms["soft"] = config.soft_weight * soft_target_loss(soft, logits, config.temperature)
        if self._targets is not None and guesses is not None:
            features = self._for_copies(torch.from_numpy(self._targets.features[rows]).float())
            terms["feature"] = config.feature_weight * feature_loss(guesses, features)
        return terms, (scores.argmax(dim=1) == labels).float().mean().item()

    def _for_copies(self, rows: Tensor) -> Tensor:
        repeated = rows.repeat(self.config.copies, *[1] * (rows.ndim - 1))
        return repeated.to(self.config.device)

    def _update_average(self) -> None:
        # A short memory at first: the earliest weights are worth little.
        updates = self.step // self.config.average_every_steps
        decay = min(self.config.average_decay, (1 + updates) / (10 + updates))
        with torch.no_grad():
            current = self._student.state_dict()
            for name, average in self._average.state_dict().items():
                if average.is_floating_point():
                    average.lerp_(current[name], 1 - decay)
                else:
                    average.copy_(current[name])

    def _note(self, figures: dict[str, float], side: int, rate: float) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._summed += 1
        if self.step % self.config.log_every_steps:
            return
        now = self._clock()
        spent = max(now - self._logged, 1e-9)
        self._log(
            {
                "step": self.step,
                "epoch": round(self.step * self.config.batch / len(self._set), 3),
                "progress": round(self.progress(), 4),
                "elapsed_s": round(self._elapsed(), 1),
                "side": side,
                "learning_rate": round(rate, 6),
                "images_per_s": round(self._summed * self.config.batch / spent, 1),
                **{name: round(total / self._summed, 4) for name, total in self._sums.items()},
            }
        )
        self._logged, self._sums, self._summed = now, {}, 0

    def _log(self, line: dict[str, object]) -> None:
        with (self.config.run_folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _needed_targets(config: PretrainingConfig, training_set: TrainingSet) -> TeacherTargets | None:
    if config.targets is not None:
        return open_targets(config.targets, training_set)
    if config.soft_weight or config.feature_weight:
        raise TrainingSetInvalid(
            "`targets` of a training run must be given where `soft_weight` or `feature_weight` is above 0; "
            f"got none with {config.soft_weight} and {config.feature_weight}."
        )
    return None


def _optimizer(student: Student, config: PretrainingConfig) -> torch.optim.SGD:
    parameters = list(student.parameters())
    return torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=True,
    )


def _step_generator(seed: int, step: int) -> torch.Generator:
    # Mixed by numpy, so that neighbouring steps and seeds share no stream.
    mixed = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))


def _identity(config: PretrainingConfig, training_set: TrainingSet, targets: TeacherTargets | None) -> str:
    facts = {
        "recipe": config.recipe(),
        "training_set": training_set.digest,
        "teacher": None if targets is None else [targets.teacher_sha256, targets.image_size],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
