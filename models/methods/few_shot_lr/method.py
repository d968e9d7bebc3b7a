"""The live classifier: examples of classes that may come and go, and what follows from them.

Everything that is learnt (`FittedClasses`) is computed afresh from the examples held, in an order that does not depend
on how they came: a class that was added and removed leaves no trace, and two processes that hold the same examples
answer alike. It is computed when first asked for after a change.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from index import Neighbours
from index.errors import IdTaken, NotFinite, WidthMismatch
from models.contract import Params
from models.errors import BankTooSmall, NothingToCompare, ParameterInvalid
from models.methods.few_shot_lr.open_set import ClassDistances, cosine_distances
from models.methods.few_shot_lr.regression import RegressionProblem, Separators, softmax
from models.methods.few_shot_lr.temperature import fitted_sharpness

FOLDS = 5
"""Parts that the examples of a class are split into, to judge each by a fit without it; fewer for small classes."""

SHARPNESS_ROWS = 1000
"""Held-out examples that are enough to fit the sharpness: further parts are left alone."""

NEVER_HELD_OUT = -1


class FewShotLRParams(Params):
    """Parameters of `few_shot_lr`."""

    c: float = Field(
        default=1.0,
        ge=1e-6,
        le=1e6,
        description="Weight of the examples' loss against the squared weights, as `C` of scikit-learn.",
    )
    normalize: bool = Field(default=True, description="Divide each vector by its length before the regression.")
    k: int = Field(
        default=3, ge=1, le=64, description="How many nearest examples of a class its distance averages, in images."
    )


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled images, in order of class, then key, then id."""

    ids: NDArray[np.int64]
    """(N,)"""
    keys: NDArray[np.uint64]
    """(N,) hash of each image's own id"""
    labels: tuple[str, ...]
    """(N,)"""
    vectors: NDArray[np.float32]
    """(N, D)"""
    groups: tuple[str | None, ...]
    """(N,)"""

    def ordered(self) -> "Examples":
        """The same examples in the one order."""
        return self._taken(np.lexsort((self.ids, self.keys, np.array(self.labels, dtype=str))))

    def without(self, gone: NDArray[np.bool_]) -> "Examples":
        """The examples that are not gone."""
        return self._taken(np.flatnonzero(~gone))

    def _taken(self, places: NDArray[np.intp]) -> "Examples":
        return Examples(
            ids=self.ids[places],
            keys=self.keys[places],
            labels=tuple(self.labels[place] for place in places),
            vectors=self.vectors[places],
            groups=tuple(self.groups[place] for place in places),
        )


@dataclass(frozen=True, slots=True)
class Classified:
    """What is known of Q images."""

    probabilities: NDArray[np.float64]
    """(Q, C), in order of `FittedClasses.labels`; each row adds up to 1."""
    score: NDArray[np.float32]
    """(Q,); distance to the nearest class, 1 - cos; larger = stranger."""
    nearest: Neighbours
    """(Q, nearest); the nearest examples of any class."""


class FittedClasses:
    """What follows from a set of examples. Never changes; many threads may call it at once."""

    def __init__(self, examples: Examples, params: FewShotLRParams) -> None:
        """Fits at once.

        Raises:
            BankTooSmall: there is no example.
        """
        if examples.ids.size == 0:
            raise BankTooSmall("The classes of method `few_shot_lr` must hold at least 1 example; got 0.")
        self.examples = examples.ordered()
        self.params = params
        found, numbers = np.unique(np.array(self.examples.labels, dtype=str), return_inverse=True)
        self.labels: tuple[str, ...] = tuple(found.tolist())
        self._classes = numbers.astype(np.int64)
        self._units = unit_rows(self.examples.vectors)
        self._place_of = {int(one): place for place, one in enumerate(self.examples.ids)}
        self._distances = ClassDistances(self._classes, self.examples.groups, params.k)
        rows = self._units if params.normalize else self.examples.vectors
        self._problem = RegressionProblem(rows, self._classes, len(self.labels), params.c)
        self._separators = self._problem.solve()
        self._folds = self._folds_of_rows()
        self._without: dict[int, Separators] = {}
        self._solving = threading.Lock()
        _, self.calibration_scores = self._distances.calibration(self._units, self._classes, self.examples.keys)
        self.sharpness, self.sharpness_rows = self._fitted_sharpness()

    def counts(self) -> dict[str, int]:
        """How many examples each class has, in order of label."""
        return dict(zip(self.labels, self._distances.sizes.tolist(), strict=True))

    def label_of(self, number: int) -> str:
        """The class of an example, by its id. Raises KeyError."""
        return self.examples.labels[self._place_of[number]]

    def single(self) -> list[str]:
        """Classes whose examples cannot calibrate anything: one image, or one group of images."""
        return [label for label, units in zip(self.labels, self._distances.units, strict=True) if units == 1]

    @property
    def memory_bytes(self) -> int:
        """Bytes of its larger arrays, with all the fits it may come to hold."""
        fits = 1 + min(FOLDS, int(self._distances.units.max()))
        return int(2 * self._units.nbytes + self._problem.memory_bytes + fits * self._separators.weights.nbytes)

    def classify(
        self, vectors: NDArray[np.float32], *, nearest: int = 3, exclude: NDArray[np.int64] | None = None
    ) -> Classified:
        """Probabilities, distance to the nearest class and nearest examples of each image.

        An image that is itself an example is left out of its own judgement when named in `exclude`: its probabilities
        are those of a fit without it (and without the part of the examples it was held out with).

        Shapes: vectors (Q, D), exclude (Q,) ids that must not count for their own row, -1 for none.
        Units:  distances are 1 - cos, in [0, 2].
        Ties:   lowest key first.
        Order:  each image by itself: the same bits alone and in any batch.

        Raises:
            NothingToCompare: the only example is the excluded one.
            ParameterInvalid: `nearest` is negative.
            WidthMismatch, NotFinite: the vectors do not fit those of the examples.

        Source: Tian, Wang, Krishnan, Tenenbaum, Isola 2020, arXiv:2003.11539.
        """
        if nearest < 0:
            raise ParameterInvalid(f"`nearest` of method `few_shot_lr` must be 0 or more; got {nearest}.")
        check_vectors(vectors, self._units.shape[1])
        left_out = np.full(vectors.shape[0], -1, np.int64) if exclude is None else exclude
        probabilities = np.empty((vectors.shape[0], len(self.labels)))
        score = np.empty(vectors.shape[0], np.float32)
        ids = np.full((vectors.shape[0], nearest), -1, np.int64)
        shown = np.full((vectors.shape[0], nearest), np.inf, np.float32)
        units = unit_rows(vectors)
        for row, (unit, one) in enumerate(zip(units, left_out.tolist(), strict=True)):
            place = self._place_of.get(one)
            distances = cosine_distances(unit, self._units)
            if place is not None:
                if self._units.shape[0] == 1:
                    raise NothingToCompare("The classes must hold an example besides the image asked about; got none.")
                distances[place] = np.inf
            separators = self._separators if place is None else self._separators_without(place)
            logits = separators.logits(unit if self.params.normalize else vectors[row])
            probabilities[row] = softmax(self.sharpness * logits)
            score[row] = self._distances.to_classes(distances[None])[0].min()
            order = np.argsort(distances, kind="stable")[:nearest]
            order = order[np.isfinite(distances[order])]
            ids[row, : order.size] = self.examples.ids[order]
            shown[row, : order.size] = distances[order]
        return Classified(probabilities, score, Neighbours(ids=ids, distances=shown))

    def slopes(
        self, vectors: NDArray[np.float32], *, label: str | None, exclude: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """The gradient of the probability of a class, or of the score where `label` is None, with respect to vectors.

        Shapes: vectors (Q, D), exclude (Q,) as in `classify` -> (Q, D).

        Raises:
            ParameterInvalid: there is no such class.
            WidthMismatch, NotFinite: the vectors do not fit those of the examples.
        """
        if label is not None and label not in self.labels:
            raise ParameterInvalid(f"`label` of method `few_shot_lr` must be one of its classes; got {label!r}.")
        check_vectors(vectors, self._units.shape[1])
        left_out = np.full(vectors.shape[0], -1, np.int64) if exclude is None else exclude
        found = np.empty(vectors.shape, np.float64)
        for row, (unit, one) in enumerate(zip(unit_rows(vectors), left_out.tolist(), strict=True)):
            place = self._place_of.get(one)
            if label is not None:
                separators = self._separators if place is None else self._separators_without(place)
                chances = softmax(self.sharpness * separators.logits(unit if self.params.normalize else vectors[row]))
                target = self.labels.index(label)
                pulls = -chances[target] * chances
                pulls[target] += chances[target]
                slope = self.sharpness * (pulls @ separators.weights.astype(np.float64))
            else:
                distances = cosine_distances(unit, self._units)
                if place is not None:
                    distances[place] = np.inf
                nearest = self._distances.nearest_class(distances)
                slope = -self._units[nearest].mean(axis=0, dtype=np.float64)
            if label is None or self.params.normalize:  # what was read is the vector at unit length
                length = float(np.linalg.norm(vectors[row].astype(np.float64)))
                slope = (slope - (slope @ unit) * unit) / (length or 1.0)
            found[row] = slope
        return found

    def held_out(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities of the examples that the sharpness rests on, each from a fit without it, and their classes.

        Shapes: -> (m, C), (m,).
        """
        logits, classes = self._held_out_logits()
        return softmax(self.sharpness * logits), classes

    def _fitted_sharpness(self) -> tuple[float, int]:
        logits, classes = self._held_out_logits()
        return fitted_sharpness(logits, classes), classes.size

    def _held_out_logits(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        rows = self._units if self.params.normalize else self.examples.vectors
        logits, places = [np.empty((0, len(self.labels)))], [np.empty(0, np.int64)]
        for fold in range(self._folds.max() + 1):
            if sum(map(len, places)) >= SHARPNESS_ROWS:
                break
            chosen = np.flatnonzero(self._folds == fold)
            separators = self._separators_without_fold(fold)
            logits.append((rows[chosen] - separators.centre) @ separators.weights.T + separators.intercepts)
            places.append(chosen)
        return np.concatenate(logits).astype(np.float64), self._classes[np.concatenate(places)]

    def _folds_of_rows(self) -> NDArray[np.int64]:
        """Which part each example is held out with; groups stay together, every class keeps something in each fit."""
        folds = np.full(self._classes.size, NEVER_HELD_OUT, np.int64)
        parts = min(FOLDS, int(self._distances.units.max()))
        for number in np.flatnonzero(self._distances.units > 1):
            places = np.flatnonzero(self._classes == number)
            _, firsts, unit_of = np.unique(self._distances.groups[places], return_index=True, return_inverse=True)
            rank_of_unit = np.argsort(np.argsort(firsts))  # by the smallest key of the unit
            folds[places] = (rank_of_unit[unit_of] + number) % parts
        return folds

    def _separators_without(self, place: int) -> Separators:
        """A fit that has not seen this example."""
        fold = int(self._folds[place])
        if fold != NEVER_HELD_OUT:
            return self._separators_without_fold(fold)
        others = np.arange(self._classes.size) != place
        with self._solving:
            return self._problem.solve(others)

    def _separators_without_fold(self, fold: int) -> Separators:
        with self._solving:
            if fold not in self._without:
                self._without[fold] = self._problem.solve(self._folds != fold)
            return self._without[fold]


class LiveFewShotLR:
    """Examples of classes, added and removed at any time, and the classifier that follows from them.

    Locks nothing but its own fit; many may read at once, writing needs everybody else out.
    """

    name: ClassVar[str] = "few_shot_lr"
    Params: ClassVar[type[Params]] = FewShotLRParams

    def __init__(self, *, width: int, params: FewShotLRParams) -> None:
        self.params = params
        self.width = width
        self._examples = Examples(
            np.empty(0, np.int64), np.empty(0, np.uint64), (), np.empty((0, width), np.float32), ()
        )
        self._fitted: FittedClasses | None = None
        self._fitting = threading.Lock()

    def __len__(self) -> int:
        return self._examples.ids.size

    def add(
        self,
        ids: NDArray[np.int64],
        keys: NDArray[np.uint64],
        labels: Sequence[str],
        vectors: NDArray[np.float32],
        groups: Sequence[str | None] | None = None,
    ) -> None:
        """Put examples into their classes, making those that are new; nothing is added when anything is refused.

        Shapes: ids (B,), keys (B,) hashes of the images' own ids, labels B, vectors (B, D), groups B names or None.

        Raises:
            WidthMismatch, NotFinite: the vectors are not what the classifier was made for.
            IdTaken: an id is an example already, or comes twice.
            ParameterInvalid: not one key, label or group for each id.
        """
        for what, given in (("keys", keys), ("labels", labels), ("vectors", vectors), ("groups", groups)):
            if given is not None and len(given) != ids.size:
                raise ParameterInvalid(f"`{what}` must have one entry per image, {ids.size}; got {len(given)}.")
        check_vectors(vectors, self.width)
        known = np.concatenate([self._examples.ids, ids])
        if np.unique(known).size != known.size:
            raise IdTaken("`id` of an example must not be an example already; got one twice.")
        held = self._examples
        self._examples = Examples(
            known,
            np.concatenate([held.keys, keys]),
            (*held.labels, *labels),
            np.concatenate([held.vectors, vectors]),
            (*held.groups, *([None] * ids.size if groups is None else groups)),
        )
        self._fitted = None

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Forget examples; unknown ids are ignored. Says how many were there. A class without examples is gone."""
        return self._forget(np.isin(self._examples.ids, ids))

    def remove_class(self, label: str) -> int:
        """Forget a class; says how many examples it had."""
        return self._forget(np.array([one == label for one in self._examples.labels], np.bool_))

    def fitted(self) -> FittedClasses:
        """What follows from the examples held now; computed once, until they change.

        Raises:
            BankTooSmall: there is no example.
        """
        with self._fitting:
            if self._fitted is None:
                self._fitted = FittedClasses(replace(self._examples), self.params)
            return self._fitted

    def _forget(self, gone: NDArray[np.bool_]) -> int:
        if gone.any():
            self._examples = self._examples.without(gone)
            self._fitted = None
        return int(gone.sum())


def check_vectors(vectors: NDArray[np.float32], width: int) -> None:
    """Refuse vectors of another width or with numbers that are not finite."""
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise WidthMismatch(f"`vectors` must have shape (images, {width}); got {vectors.shape}.")
    if not np.isfinite(vectors).all():
        raise NotFinite("`vectors` must hold finite numbers; got NaN or infinity.")


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its Euclidean length; a row of zeros stays as it is.

    Shapes: (Q, D) -> (Q, D) float32, a new array.
    Order:  each row by itself, in float64, so that batches change no bit.
    """
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=1))
    lengths[lengths == 0.0] = 1.0
    scaled: NDArray[np.float32] = (exact / lengths[:, None]).astype(np.float32)
    return scaled
