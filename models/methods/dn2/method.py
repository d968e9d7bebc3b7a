"""The live scorer: a bank of normal vectors, and one of defects that were taught.

Live means that it follows its bank: an image added or removed counts from the next call on, and so does the
calibration. It locks nothing itself; many may read at once, writing needs everybody else out.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from index import Metric, Neighbours, VectorIndex, make_index
from index.errors import IdTaken
from models.contract import Params
from models.errors import BankTooSmall, NothingToCompare, ParameterInvalid
from models.leave_one_out import (
    GroupLedger,
    LeaveOneOutTable,
    NearestRows,
    Progress,
    every_nearest_others,
    first_kept,
    nearest_others,
)
from models.methods.dn2.maths import (
    distance_slopes,
    mean_of_nearest,
    unit_rows,
    weighed_by_known_defects,
    weighed_slopes,
)
from models.pooling import disjoint_sets

if TYPE_CHECKING:
    from index import AutoIndex  # loads FAISS, which no start waits for

K_MAX = 64
"""Largest k on offer."""

K_OF_CLEANING_MAX = 512
"""Most neighbours a cleaning pass averages: bounds its memory to 512 distances an image."""

DEFECTS_DEPTH = 4  # nearest taught defects remembered for each calibration row; only the first counts
_ROWS = 256  # queries in one search of the taught defects: bounds its memory


class DN2Params(Params):
    """Parameters of `dn2`."""

    k: int = Field(default=2, ge=1, le=K_MAX, description="How many nearest normal images are averaged, in images.")
    metric: Metric = Field(
        Metric.COSINE,
        description="Distance of two vectors: `cosine` is 1 - cos, `l2` is Euclidean.",
    )
    normalize: bool = Field(
        default=False, description="Divide each vector by its length first; `l2` only, `cosine` ignores length."
    )


@dataclass(frozen=True, slots=True)
class DN2Scores:
    """What is known of Q queries after one pass."""

    score: NDArray[np.float32]
    """(Q,); distance in the metric's unit, weighed by taught defects; larger = stranger."""
    plain: NDArray[np.float32]
    """(Q,); the same without taught defects."""
    neighbours: Neighbours
    """(Q, neighbours); the nearest normal images."""
    known: Neighbours
    """(Q, 1); the nearest taught defect."""


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """Scores of bank images that did not see themselves or their group."""

    scores: NDArray[np.float32]
    """(n,)"""
    ids: NDArray[np.int64]
    """(n,), in the same order."""


class LiveDN2:
    """Mean distance to the k nearest normal images, over a bank that may change at any time."""

    name: ClassVar[str] = "dn2"
    Params: ClassVar[type[Params]] = DN2Params

    def __init__(self, *, width: int, params: DN2Params) -> None:
        self.params = params
        self.bank = make_index("auto", width=width, metric=params.metric)
        self.anomalous = make_index("auto", width=width, metric=params.metric)
        self._table = LeaveOneOutTable(self.bank)
        # The nearest taught defect of each calibration row. A defect's group does not matter: it stands for
        # itself.
        self._defects_near_rows = NearestRows(self.anomalous, GroupLedger(), depth=DEFECTS_DEPTH)
        self._calibrations: dict[int, CalibrationScores] = {}
        self._reading = threading.Lock()

    @classmethod
    def restore(
        cls,
        *,
        params: DN2Params,
        bank: "AutoIndex",
        anomalous: "AutoIndex",
        arrays: Mapping[str, NDArray[Any]],
        grouped: Mapping[int, str],
    ) -> "LiveDN2":
        """A scorer over indexes that hold what they held when `export_arrays` was called.

        `grouped` names the group of each bank image that has one. The indexes are taken over, not copied.
        """
        scorer = cls(width=bank.width, params=params)
        scorer.bank, scorer.anomalous = bank, anomalous
        scorer._table = LeaveOneOutTable(bank)
        scorer._table.restore(_below("table.", arrays), grouped)
        defects = _below("defects.", arrays)
        scorer._defects_near_rows = NearestRows(anomalous, GroupLedger(), depth=DEFECTS_DEPTH)
        scorer._defects_near_rows.restore(defects, bank.vectors(defects["ids"]))
        return scorer

    def export_arrays(self) -> dict[str, NDArray[Any]]:
        """What the scorer knows beside its two indexes: the calibration rows and their nearest.

        Views of arrays that the next change may replace: nobody may write meanwhile.
        """
        with self._reading:
            table = {f"table.{name}": array for name, array in self._table.export_arrays().items()}
            defects = {f"defects.{name}": array for name, array in self._defects_near_rows.export_arrays().items()}
            return {**table, **defects}

    def recalibrate(self) -> None:
        """Compute the calibration afresh when it is next asked for; needed when an index searches in another way."""
        self._table.forget()
        self._defects_near_rows.forget()
        self._calibrations.clear()

    @property
    def width(self) -> int:
        """Features of a vector."""
        return self.bank.width

    def prepared(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (Q, D) as the two indexes hold them: at unit length under `normalize`, else as they are."""
        if self.params.normalize and self.params.metric is Metric.L2 and vectors.ndim == 2:
            return unit_rows(vectors)
        return vectors

    def add_normal(
        self,
        ids: NDArray[np.int64],
        keys: NDArray[np.uint64],
        vectors: NDArray[np.float32],
        groups: Sequence[str | None] | None = None,
    ) -> None:
        """Put normal images into the bank; nothing is added when anything is refused.

        Shapes: ids (B,), keys (B,) hashes of the images' own ids, vectors (B, D), groups B names or None.

        Raises:
            WidthMismatch, NotFinite, IdTaken: from the index; also when an id is a taught defect.
        """
        if groups is not None and len(groups) != ids.size:
            raise ParameterInvalid(f"`groups` must have one entry per image, {ids.size}; got {len(groups)}.")
        if keys.shape != ids.shape:
            raise ParameterInvalid(f"`keys` must have one entry per image, {ids.size}; got {keys.size}.")
        taught = np.isin(ids, self.anomalous.ids())
        if taught.any():
            raise IdTaken(f"`id` of a normal image must not be a taught defect; got {int(ids[taught][0])}.")
        self.bank.add(ids, self.prepared(vectors))
        self._table.add(ids, keys, groups)
        self._calibrations.clear()

    def add_anomalous(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Teach defects; nothing is added when anything is refused.

        Shapes: ids (B,), vectors (B, D).

        Raises:
            WidthMismatch, NotFinite, IdTaken: from the index; also when an id is in the bank.
        """
        normal = self._table.holds(ids)
        if normal.any():
            raise IdTaken(f"`id` of a taught defect must not be a normal image; got {int(ids[normal][0])}.")
        self.anomalous.add(ids, self.prepared(vectors))
        self._defects_near_rows.targets_added(ids, self.anomalous.vectors(ids))
        self._calibrations.clear()

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Forget images, normal or taught; says how many were there."""
        normal, taught = self.bank.remove(ids), self.anomalous.remove(ids)
        if normal:
            self._table.remove(ids)
            # At once, not when next read: the id may come back with another vector before that.
            self._defects_near_rows.leave(ids)
        if taught:
            self._defects_near_rows.targets_removed(ids)
        if normal or taught:
            self._calibrations.clear()
        return normal + taught

    def score(
        self,
        vectors: NDArray[np.float32],
        *,
        k: int | None = None,
        neighbours: int = 3,
        exclude: NDArray[np.int64] | None = None,
        is_set: bool = False,
    ) -> DN2Scores:
        """How far each query lies from the normal images, and what it lies closest to.

        When the bank holds fewer than k images besides its largest group, as many as every left-out image
        has are averaged, for queries and calibration alike (`LeaveOneOutTable.usable_k`).

        Shapes: vectors (Q, D), exclude (Q,) ids that must not count for their own query, -1 for none. The group of such
                an id counts as little, as in calibration, unless the bank holds nothing else. Under `is_set` none of
                these ids nor their groups counts for any query: images of one set must not vouch for each other.
        Units:  the metric's distance; [0, inf); larger = stranger.
        Ties:   lowest id first.
        Order:  each query by itself: the same bits alone and in any batch.

        Raises:
            BankTooSmall: no normal image is stored.
            NothingToCompare: the only normal image is the excluded one, or fewer than k lie outside the set.
            ParameterInvalid: `k` is not from 1 to 64, or `neighbours` is negative.
            WidthMismatch, NotFinite: from the index.

        Source: Bergman, Cohen, Hoshen 2020, arXiv:2002.10445, section 3.
        """
        asked_k = self._asked_k(k)
        if neighbours < 0:
            raise ParameterInvalid(f"`neighbours` of method `dn2` must be 0 or more; got {neighbours}.")
        if exclude is not None and exclude.shape != vectors.shape[:1]:
            raise ParameterInvalid(f"`exclude` must have one id per query; got {exclude.shape[0]}.")
        if exclude is not None and not np.count_nonzero(exclude >= 0):
            exclude = None  # nothing to leave out: a plain search does
        if len(self.bank) == 0:
            raise BankTooSmall("The bank of method `dn2` must hold at least 1 normal image; got 0.")
        used_k = self._table.usable_k(asked_k)
        prepared = self.prepared(vectors)
        nearest = self._nearest_normal(prepared, max(used_k, neighbours), exclude, is_set=is_set)
        if np.count_nonzero(nearest.ids[:, used_k - 1] < 0):
            if is_set:
                raise NothingToCompare(
                    f"The bank must hold {used_k} normal images outside the set asked about and its groups; got fewer."
                )
            raise NothingToCompare("The bank must hold a normal image besides the one asked about; got none.")
        plain = mean_of_nearest(nearest.distances, used_k)
        known = _search(self.anomalous, prepared, 1, exclude)
        score = weighed_by_known_defects(plain, known.distances[:, 0]) if len(self.anomalous) else plain
        return DN2Scores(
            score=score.astype(np.float32),
            plain=plain.astype(np.float32),
            neighbours=_first(nearest, neighbours),
            known=known,
        )

    def slopes(
        self, vectors: NDArray[np.float32], *, k: int | None = None, exclude: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """The gradient of each query's score with respect to its vector, its neighbours held fixed.

        Shapes: vectors (Q, D), exclude (Q,) as in `score` -> (Q, D).

        Raises:
            as `score`.
        """
        neighbours = self._table.usable_k(self._asked_k(k))
        found = self.score(vectors, k=k, neighbours=neighbours, exclude=exclude)
        metric, prepared = self.params.metric, self.prepared(vectors).astype(np.float64)
        slopes = np.empty(vectors.shape, np.float64)
        for row, query in enumerate(prepared):
            near = self.bank.vectors(found.neighbours.ids[row]).astype(np.float64)
            slope = distance_slopes(query, near, metric).mean(axis=0)
            if found.known.ids[row, 0] >= 0:
                defect = self.anomalous.vectors(found.known.ids[row]).astype(np.float64)
                slope_of_defect = distance_slopes(query, defect, metric)[0]
                slope = weighed_slopes(
                    float(found.plain[row]), slope, float(found.known.distances[row, 0]), slope_of_defect
                )
            if self.params.normalize and metric is Metric.L2:  # the score reads the vector at unit length
                length = float(np.linalg.norm(vectors[row].astype(np.float64)))
                slope = (slope - (slope @ query) * query) / (length or 1.0)
            slopes[row] = slope
        return slopes

    def calibration(self, k: int | None = None) -> CalibrationScores:
        """Leave-one-out scores of at most 2,000 bank images, by the same formula as queries.

        Empty while no image has another outside its group. Remembered until the bank changes.

        Raises:
            ParameterInvalid: `k` is not from 1 to 64.
        """
        used_k = self._table.usable_k(self._asked_k(k))
        with self._reading:
            if used_k not in self._calibrations:
                self._calibrations[used_k] = self._calibrated(used_k)
            return self._calibrations[used_k]

    def calibration_in_sets(self, size: int, k: int | None = None) -> NDArray[np.float32]:
        """Scores of the calibration images in disjoint sets of a size, each image without its whole set and its groups.

        Images of a new set are not in the bank to vouch for each other. With those of calibration sets among the
        neighbours, 6 % of sets were beyond a border for 5 %. A function of what the bank holds; sets that leave fewer
        than k others are none.

        Shapes: -> (n, size), n at most the calibration images / size.
        Cost:   a search for the sets in which an image is a neighbour of another; `calibration` knows the rest.

        Raises:
            ParameterInvalid: `k` is not from 1 to 64.
        """
        used_k = self._table.usable_k(self._asked_k(k))
        calibration = self.calibration(k)
        if calibration.ids.size == 0:
            return np.zeros((0, size), np.float32)
        with self._reading:
            near = self._table.nearest(used_k).ids
        places = np.argsort(calibration.ids)
        by_key, _ = self._table.all_keys()
        by_key = by_key[np.isin(by_key, calibration.ids, assume_unique=True)]
        places = places[np.searchsorted(calibration.ids, by_key, sorter=places)]
        found = []
        for members in places[disjoint_sets(places.size, size, seed=0)]:
            ids = calibration.ids[members]
            if not np.isin(near[members], self._with_groups(ids)).any():
                found.append(calibration.scores[members])
                continue
            with suppress(NothingToCompare):
                found.append(self.score(self.bank.vectors(ids), k=k, neighbours=0, exclude=ids, is_set=True).score)
        return np.stack(found) if found else np.zeros((0, size), np.float32)

    def scores_in_sets(
        self, sets: Sequence[NDArray[np.int64]], k: int | None = None
    ) -> list[NDArray[np.float32] | None]:
        """Scores of bank images in these sets, each image without its whole set and its groups; None: too few are left.

        Shapes: each (size,) ids -> (size,).
        Cost:   one search of 256 rows at a time; one more for each set that shares an image or a group with another.

        Raises:
            ParameterInvalid: `k` is not from 1 to 64.
            IdUnknown: an image is not in the bank.
        """
        used_k = self._table.usable_k(self._asked_k(k))
        found: list[NDArray[np.float32] | None] = [None] * len(sets)
        ledger, together = GroupLedger(), list[int]()
        taken = set[int]()
        for place, members in enumerate(sets):
            whole = self._with_groups(members).tolist()
            if taken.isdisjoint(whole):
                taken.update(whole)
                ledger.add(whole, [str(place)] * len(whole))
                together.append(place)
                continue
            with suppress(NothingToCompare):
                found[place] = self.score(
                    self.bank.vectors(members), k=k, neighbours=0, exclude=members, is_set=True
                ).score
        if not together:
            return found
        ids = np.concatenate([sets[place] for place in together])
        scores = np.full(ids.size, np.nan, np.float32)
        for start in range(0, ids.size, _ROWS):
            rows = slice(start, start + _ROWS)
            vectors = self.bank.vectors(ids[rows])
            near = nearest_others(self.bank, ids[rows], vectors, used_k, ledger)
            plain = mean_of_nearest(near.distances, used_k)
            if len(self.anomalous):
                plain = weighed_by_known_defects(plain, self.anomalous.search(vectors, 1).distances[:, 0])
            scores[rows] = np.where(near.ids[:, used_k - 1] < 0, np.nan, plain)
        ends = np.cumsum([sets[place].size for place in together])[:-1]
        for place, of_set in zip(together, np.split(scores, ends), strict=True):
            found[place] = None if np.isnan(of_set).any() else of_set
        return found

    def leave_one_out(
        self, k: int | None = None, *, progress: Progress | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The score of every bank image against the rest of the bank, itself and its group left out.

        Shapes: -> ids (N,) ascending, scores (N,).
        Memory: N x k; one search of 256 rows at a time.

        Raises:
            BankTooSmall: fewer than two images, or all of one group.
            ParameterInvalid: `k` is not from 1 to 512.

        Source: Bergman, Cohen, Hoshen 2020, arXiv:2002.10445, the unsupervised setting.
        """
        asked_k = self._asked_k(k, K_OF_CLEANING_MAX)
        if len(self.bank) <= self._table.groups.largest():
            raise BankTooSmall(
                "The bank of method `dn2` must hold at least 2 normal images, not all of one group, "
                f"to compare them with each other; got {len(self.bank)}."
            )
        used_k = self._table.usable_k(asked_k)
        ids, nearest = every_nearest_others(self.bank, used_k, self._table.groups, progress)
        plain = mean_of_nearest(nearest.distances, used_k)
        to_defect = np.full(ids.size, np.inf, dtype=np.float32)
        if len(self.anomalous):
            for start in range(0, ids.size, _ROWS):
                rows = slice(start, start + _ROWS)
                to_defect[rows] = self.anomalous.search(self.bank.vectors(ids[rows]), 1).distances[:, 0]
        return ids, weighed_by_known_defects(plain, to_defect).astype(np.float32)

    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Ids of the bank and their keys, by ascending key.

        Shapes: -> (N,), (N,).
        """
        return self._table.all_keys()

    @property
    def groups(self) -> GroupLedger:
        """Which bank images were taken together; to be read only."""
        return self._table.groups

    def _calibrated(self, used_k: int) -> CalibrationScores:
        ids = self._table.ids
        if len(self.bank) <= self._table.groups.largest():
            return CalibrationScores(scores=np.zeros(0, dtype=np.float32), ids=ids[:0])
        plain = mean_of_nearest(self._table.nearest(used_k).distances, used_k)
        to_defect = np.full(ids.size, np.inf, dtype=np.float32)
        if len(self.anomalous):
            followed = self._defects_near_rows
            followed.leave(np.setdiff1d(followed.ids, ids))
            entering = np.setdiff1d(ids, followed.ids)
            followed.enter(entering, self.bank.vectors(entering))
            ascending = np.argsort(followed.ids)
            places = ascending[np.searchsorted(followed.ids, ids, sorter=ascending)]
            to_defect = followed.nearest(1).distances[places, 0]
        return CalibrationScores(scores=weighed_by_known_defects(plain, to_defect).astype(np.float32), ids=ids)

    def _nearest_normal(
        self, vectors: NDArray[np.float32], k: int, exclude: NDArray[np.int64] | None, *, is_set: bool
    ) -> Neighbours:
        groups = self._table.groups
        if exclude is not None and is_set:
            members = self._with_groups(exclude[exclude >= 0])
            one_set = GroupLedger()
            one_set.add(members.tolist(), ["set"] * members.size)
            return nearest_others(self.bank, exclude, vectors, k, one_set)
        if exclude is None or not groups:
            return _search(self.bank, vectors, k, exclude)
        found = nearest_others(self.bank, exclude, vectors, k, groups)
        alone = np.flatnonzero(found.ids[:, 0] < 0)  # all normal images are of its group: there is no calibration then
        if alone.size:
            mates = _search(self.bank, vectors[alone], k, exclude[alone])
            found.ids[alone], found.distances[alone] = mates.ids, mates.distances
        return found

    def _with_groups(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """These ids and all that share a group with one of them."""
        groups = self._table.groups
        return np.unique(np.concatenate([ids, *(groups.members(number) for number in ids.tolist() if groups)]))

    def _asked_k(self, k: int | None, most: int = K_MAX) -> int:
        if k is None:
            return self.params.k
        if not 1 <= k <= most:
            raise ParameterInvalid(f"`k` of method `dn2` must be a whole number from 1 to {most}; got {k}.")
        return k


def _first(found: Neighbours, count: int) -> Neighbours:
    """The first so many neighbours of each query, without the memory of the others."""
    if count == found.ids.shape[1]:
        return found
    return Neighbours(ids=found.ids[:, :count].copy(), distances=found.distances[:, :count].copy())


def _search(index: VectorIndex, vectors: NDArray[np.float32], k: int, exclude: NDArray[np.int64] | None) -> Neighbours:
    if not len(index):
        return Neighbours.none(len(vectors), k)
    if exclude is None:
        return index.search(vectors, k)
    found = index.search(vectors, k + 1)
    return first_kept(found, (found.ids != exclude[:, None]) & (found.ids >= 0), k)


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
