"""What a teacher says of every packed image, computed once.

A student that learns from whole images needs one pass of the teacher, however many epochs follow. Views are
cut from the image afterwards; the teacher's answer for the whole image stands for all of them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from models.errors import ParameterInvalid
from models.pretraining.data import TrainingSet
from models.pretraining.errors import TrainingSetInvalid

_FEATURES, _LOGITS, _RECORD = "features.npy", "logits.npy", "record.json"
_RAW = "features.part.npy"


class Teacher(Protocol):
    """A trained network that is only asked."""

    name: str
    sha256: str  # of its file
    image_size: int

    def ask(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pooled features and logits of each image.

        Shapes: pixels (B, S, S, 3), S = image_size -> features (B, F), logits (B, C).
        """


@dataclass(frozen=True, slots=True, eq=False)
class TeacherTargets:
    """A teacher's answers to one training set, mapped into memory."""

    features: NDArray[np.float16]  # (N, width), principal components of the pooled features, mean variance 1
    logits: NDArray[np.float16]  # (N, C)
    teacher: str
    teacher_sha256: str
    image_size: int
    kept_variance: float  # share of the features' variance in the components kept, 0 to 1
    training_set: str  # digest of the set the answers belong to


def make_targets(
    training_set: TrainingSet,
    teacher: Teacher,
    folder: Path,
    *,
    width: int = 384,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherTargets:
    """The teacher's answers to every image, with its features turned to their leading principal components.

    The components keep their proportions (no whitening); one factor brings their mean variance to 1, so that
    a squared error starts near 1 whatever the teacher.

    Memory: one batch, and F x F float64 for the covariance; features and logits go to files.

    Raises:
        ParameterInvalid: `width` is below 1 or above the teacher's.
    """
    count = len(training_set)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)
    features: NDArray[np.float16] | None = None
    logits: NDArray[np.float16] | None = None
    for start in range(0, count, batch):
        stop = min(start + batch, count)
        told, said = teacher.ask(resized(training_set.images[start:stop], teacher.image_size))
        if features is None or logits is None:
            if not 1 <= width <= told.shape[1]:
                raise ParameterInvalid(
                    f"`width` of the targets must be from 1 to the teacher's {told.shape[1]}; got {width}."
                )
            features = np.lib.format.open_memmap(folder / _RAW, "w+", np.float16, (count, told.shape[1]))
            logits = np.lib.format.open_memmap(folder / _LOGITS, "w+", np.float16, (count, said.shape[1]))
        features[start:stop] = told
        logits[start:stop] = said
        if progress is not None:
            progress(stop, count)
    if features is None or logits is None:
        raise TrainingSetInvalid("`training_set` of the targets must hold images; got none.")
    mean, basis, kept = _leading_components(features, width)
    np.save(folder / _FEATURES, _projected(features, mean, basis))
    del features, logits  # unmapping writes them out
    (folder / _RAW).unlink()
    record = {
        "teacher": teacher.name,
        "teacher_sha256": teacher.sha256,
        "image_size": teacher.image_size,
        "kept_variance": kept,
        "training_set": training_set.digest,
    }
    part = folder / f"{_RECORD}.part"
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.replace(folder / _RECORD)
    return open_targets(folder, training_set)


def open_targets(folder: Path, training_set: TrainingSet) -> TeacherTargets:
    """The answers in a folder, read-only.

    Raises:
        TrainingSetInvalid: a file is absent, or the answers belong to another training set.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        targets = TeacherTargets(
            features=np.load(folder / _FEATURES, mmap_mode="r", allow_pickle=False),
            logits=np.load(folder / _LOGITS, mmap_mode="r", allow_pickle=False),
            teacher=str(record["teacher"]),
            teacher_sha256=str(record["teacher_sha256"]),
            image_size=int(record["image_size"]),
            kept_variance=float(record["kept_variance"]),
            training_set=str(record["training_set"]),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TrainingSetInvalid(
            f"`folder` of the targets must hold features.npy, logits.npy and record.json; got {folder}: {error}."
        ) from error
    if targets.training_set != training_set.digest:
        raise TrainingSetInvalid(
            f"`training_set` of the targets must be {training_set.digest[:12]}; got answers to "
            f"{targets.training_set[:12]}."
        )
    if not len(targets.features) == len(targets.logits) == len(training_set):
        raise TrainingSetInvalid(
            f"`targets` must hold {len(training_set)} rows, one for each image; got {len(targets.features)} "
            f"and {len(targets.logits)}."
        )
    return targets


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Square images at another size, bicubic with antialiasing.

    Shapes: (B, S, S, 3) -> (B, side, side, 3).
    """
    levels = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    scaled = functional.interpolate(levels, size=(side, side), mode="bicubic", antialias=True)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())


def _leading_components(
    features: NDArray[np.float16], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    blocks = range(0, len(features), 4096)
    total = np.zeros(features.shape[1], dtype=np.float64)
    for start in blocks:
        total += features[start : start + 4096].astype(np.float64).sum(axis=0)
    mean = total / len(features)
    covariance = np.zeros((features.shape[1], features.shape[1]), dtype=np.float64)
    for start in blocks:
        centred = (features[start : start + 4096].astype(np.float64) - mean).astype(np.float32)
        covariance += centred.T @ centred
    variances, vectors = np.linalg.eigh(covariance / len(features))
    variances, vectors = variances[::-1].clip(min=0), vectors[:, ::-1]
    # The sign of a component is arbitrary; fixing it makes the targets the same everywhere.
    leading = vectors[:, :width]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(width)])
    scale = np.sqrt(variances[:width].mean()) or 1.0
    kept = float(variances[:width].sum() / (variances.sum() or 1.0))
    return mean.astype(np.float32), (leading * signs / scale).astype(np.float32), kept


def _projected(
    features: NDArray[np.float16], mean: NDArray[np.float32], basis: NDArray[np.float32]
) -> NDArray[np.float16]:
    projected = np.empty((len(features), basis.shape[1]), dtype=np.float16)
    for start in range(0, len(features), 4096):
        projected[start : start + 4096] = (features[start : start + 4096].astype(np.float32) - mean) @ basis
    return projected
