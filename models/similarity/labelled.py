"""Which images of a collection have a class, and which classes are kept apart."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Inputs, Reference
from models.errors import FitRefused
from models.held_out import stacked_vectors

IMAGES_MIN = 2
"""Of a class: with one image there is nothing it should be near to."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Vectors with the class of each."""

    vectors: NDArray[np.float32]
    """(N, D)"""
    classes: NDArray[np.int64]
    """(N,) places in `names`"""
    names: tuple[str, ...]
    """C classes in an order that neither arrival nor a seed decides."""

    def of(self, chosen: Sequence[int]) -> "Labelled":
        """Only the images of these classes, by their places."""
        rows = np.flatnonzero(np.isin(self.classes, list(chosen)))
        return Labelled(self.vectors[rows], self.classes[rows], self.names)

    def present(self) -> list[int]:
        """Places of the classes that have images here, ascending."""
        return [int(one) for one in np.unique(self.classes)]


def labelled_images(reference: Reference, *, method: str) -> Labelled:
    """Every image with a class: examples of registered classes, and images of the bank and known defects with a label.

    Classes with fewer than two images are left out. An image that is an example and has its class as label counts once.

    Raises:
        FitRefused: fewer than two classes are left.
        ParameterInvalid, WidthMismatch, NotFinite: the vectors cannot be used.
    """
    found: dict[str, dict[int, NDArray[np.float32]]] = {}
    width: int | None = None

    def enter(batches: Sequence[Inputs], label: str | None) -> None:
        nonlocal width
        for inputs in batches:
            names = [label] * len(inputs) if label is not None else list(inputs.labels)
            if not any(names):
                continue
            rows = stacked_vectors([inputs], method=method, width=width)
            width = rows.shape[1]
            for row, (name, number) in enumerate(zip(names, inputs.ids.tolist(), strict=True)):
                if name is not None:
                    found.setdefault(name, {})[number] = rows[row]

    for label, batches in sorted(reference.labels.items()):
        enter(batches, label)
    for batches in (reference.bank, reference.anomalous):
        enter(batches, None)
    names = sorted((name for name, rows in found.items() if len(rows) >= IMAGES_MIN), key=_by_hash)
    if len(names) < 2:
        raise FitRefused(
            f"The collection of method `{method}` must hold two or more classes with at least {IMAGES_MIN} images each "
            f"(a label, or an example of a registered class); got {len(names)}."
        )
    return Labelled(
        vectors=np.concatenate([np.stack([found[name][number] for number in sorted(found[name])]) for name in names]),
        classes=np.concatenate([np.full(len(found[name]), place) for place, name in enumerate(names)]),
        names=tuple(names),
    )


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes apart: those that tests look at, and folds of the others, each the validation of one."""

    test: tuple[int, ...]
    folds: tuple[tuple[int, ...], ...]
    """Validation classes of each fold; empty where there are too few classes to choose by."""
    development: tuple[int, ...]
    """Every class that is no test class."""

    def learnt(self, fold: int) -> list[int]:
        """Classes that a fold learns from: those that neither it validates on nor the test looks at."""
        return [one for one in self.development if one not in self.folds[fold]]


def classes_apart(count: int, *, test_share: float, folds: int) -> Classes:
    """Which of so many classes test, and which validate in which fold; no class has two parts.

    A fold validates on two classes at least, for one alone is always nearest to itself; so does the test. With fewer
    than four classes there is no test, with fewer than four left over no fold.

    >>> classes_apart(8, test_share=0.5, folds=4)
    Classes(test=(0, 1, 2, 3), folds=((4, 6), (5, 7)), development=(4, 5, 6, 7))
    """
    wanted = min(max(2, round(test_share * count)), count - 2) if count >= 4 else 0
    development = tuple(range(wanted, count))
    parts = min(folds, len(development) // 2)
    return Classes(
        test=tuple(range(wanted)),
        folds=tuple(development[part::parts] for part in range(parts)) if parts >= 2 else (),
        development=development,
    )


def _by_hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
