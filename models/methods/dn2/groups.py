"""Is this *set* of images normal? The paper's group setting.

A set is pooled into one vector and scored like an image: mean distance to the k nearest pooled reference
sets.

Where reference sets come from, and why each calibration is valid:

* *Registered* groups, when at least 10 are registered: each counts as one reference, and the calibration is
  leave-one-out over groups, as it is for images. New sets should be as large as the registered ones: a mean
  of few images scatters more than a mean of many, and would look strange for that alone.
* *Drawn* sets otherwise. The bank is halved by key. From one half, reference sets of the query's size are
  drawn; from the other, calibration sets that share no image with them or with each other. So nothing is
  compared with itself, and the effective number of calibration scores is floor(half / size), which is
  reported as `n`. Reference sets may overlap each other: they are the yardstick, not the sample.

Images that carry a `group` tag (burst, part, day) are kept in one half together. A drawn set may still hold
several of one tag, so a bank of few large bursts makes the sets more alike than new ones will be.

Taught defects play no part here: a defect is an image, not a set.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from index import Metric, VectorIndex, make_index
from models.errors import BankTooSmall, NothingToCompare, ParameterInvalid, SetSizeMismatch
from models.judging import VERDICT_MIN
from models.leave_one_out import CALIBRATION_ROWS, GroupLedger, every_nearest_others
from models.methods.dn2.maths import mean_of_nearest, unit_rows
from models.methods.dn2.method import DN2Params, LiveDN2

REGISTERED_MIN = VERDICT_MIN
"""Registered groups from which on they, and not drawn sets, are the reference: fewer cannot give a
verdict."""

REFERENCE_SETS = 256
"""Reference sets drawn from a bank: enough that the nearest is near, few enough to pool on request."""


class Pooling(StrEnum):
    """How the vectors of a set become one."""

    MEAN = "mean"
    """What the set is like on the whole; ignores order."""
    MAX = "max"
    """The most pronounced of each feature; ignores order, notices a single odd member best."""
    CONCAT = "concat"
    """Each place by itself: the order matters and all sets are of one size (views of one part, steps of one
    run)."""


@dataclass(frozen=True, slots=True)
class SetNeighbour:
    """One reference set near the query."""

    name: str | None
    """The registered group's name; None for a drawn set."""
    ids: tuple[int, ...]
    """The images of a drawn set; empty for a registered group."""
    distance: float


@dataclass(frozen=True, slots=True)
class GroupScore:
    """What is known of one set."""

    score: float
    """float32 value; the metric's distance between pooled vectors; larger = stranger."""
    neighbours: tuple[SetNeighbour, ...]
    """Nearest reference sets, nearest first."""
    shares: NDArray[np.float64]
    """(m,) each member's share of the squared distance to the nearest reference; sums to 1
    (`member_shares`)."""


def pool(vectors: NDArray[np.float32], pooling: Pooling | str) -> NDArray[np.float32]:
    """One vector for a set of vectors.

    Shapes: (m, D) -> (D,), and (m * D,) for concat.
    Order:  mean and max give the same bits in every order: a mean sums each feature's values by size and
            not in the order they came in (float addition is not associative); concat keeps the order.

    Raises:
        SetSizeMismatch: the set is empty.
        ParameterInvalid: the pooling is unknown.

    Source: Bergman, Cohen, Hoshen 2020, arXiv:2002.10445, group image anomaly detection.

    >>> pool(np.array([[1.0, 4.0], [3.0, 2.0]], dtype=np.float32), "mean").tolist()
    [2.0, 3.0]
    """
    if vectors.ndim != 2 or vectors.shape[0] == 0:
        raise SetSizeMismatch("A set of images must hold at least 1 image; got 0.")
    kind = _pooling(pooling)
    if kind is Pooling.CONCAT:
        return np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1).copy()
    if kind is Pooling.MAX:
        # + 0.0 turns -0.0 into 0.0, between which a maximum could choose by order.
        highest: NDArray[np.float32] = vectors.max(axis=0).astype(np.float32) + np.float32(0.0)
        return highest
    by_size = np.sort(np.ascontiguousarray(vectors.T, dtype=np.float32), axis=1).astype(np.float64)
    mean: NDArray[np.float32] = (by_size.sum(axis=1) / vectors.shape[0]).astype(np.float32)
    return mean


def member_shares(
    members: NDArray[np.float32], reference: NDArray[np.float32], pooling: Pooling | str, metric: Metric
) -> NDArray[np.float64]:
    """How much of the squared distance between a set and a reference set comes from each member.

    The squared distance is |d|^2 with d the difference of the pooled vectors (of length 1 for cosine, where
    1 - cos = |d|^2 / 2), and is split without rest:

    * mean: member i's part is d . (x_i - r) / m. *Signed*: a negative share is a member that pulls the set
      back towards the reference, and others may then exceed 1.
    * max: each feature's part goes to the member that holds the maximum, in equal parts where several do;
      >= 0.
    * concat: each member's own slice; >= 0.

    Shapes: members (m, D) as pooled, reference (P,) pooled -> (m,) summing to 1; 1 / m each at distance zero.
    """
    kind, m = _pooling(pooling), members.shape[0]
    x = members.astype(np.float64)
    pooled = {Pooling.MEAN: x.mean(axis=0), Pooling.MAX: x.max(axis=0), Pooling.CONCAT: x.reshape(-1)}[kind]
    r = reference.astype(np.float64)
    scale = 1.0
    if metric is Metric.COSINE:
        scale, length = float(np.linalg.norm(pooled)) or 1.0, float(np.linalg.norm(r)) or 1.0
        r = r / length
    d = pooled / scale - r
    if kind is Pooling.MEAN:
        parts = (x / scale - r) @ d / m
    elif kind is Pooling.MAX:
        holds = x == pooled
        parts = (holds / holds.sum(axis=0)) @ (d * d)
    else:
        parts = (d * d).reshape(m, -1).sum(axis=1)
    whole = float(d @ d)
    # Below this the difference is rounding of the float32 reference, and shares of it would be noise.
    if whole <= 1e-12 * max(float(r @ r), 1e-300):
        return np.full(m, 1.0 / m)
    shares: NDArray[np.float64] = parts / parts.sum()
    return shares


class SetSource(Protocol):
    """A bank from which sets can be drawn; `LiveDN2` is one."""

    @property
    def params(self) -> DN2Params: ...

    @property
    def bank(self) -> VectorIndex: ...

    @property
    def groups(self) -> GroupLedger:
        """Which images were taken together."""
        ...

    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Ids and keys of the bank, by ascending key."""
        ...


class GroupBank:
    """Pooled reference sets with their calibration. Nothing in it changes: safe for many threads."""

    def __init__(
        self,
        *,
        mode: Literal["registered", "drawn"],
        pooled: NDArray[np.float32],
        labels: Sequence[SetNeighbour],
        calibration: NDArray[np.float32] | None,
        set_size: int | None,
        pooling: Pooling,
        params: DN2Params,
        k: int,
    ) -> None:
        self.mode = mode
        self.pooling = pooling
        self.set_size = set_size
        """The only size of set that can be scored; None where any can."""
        self._params = params
        self._labels = tuple(labels)
        self._index: VectorIndex = make_index("flat", width=pooled.shape[1], metric=params.metric)
        self._index.add(np.arange(pooled.shape[0], dtype=np.int64), pooled)
        others = pooled.shape[0] - 1 if mode == "registered" else pooled.shape[0]
        self.k = max(1, min(k, others))
        """Reference sets averaged: as many as were asked for, or as a left-out group still has."""
        self.calibration = self._leave_one_out() if calibration is None else self._distances(calibration)
        """(n,) float32 scores of normal sets, for `models.judging`."""

    @property
    def n(self) -> int:
        """Effective number of calibration sets: registered groups, or floor(half the bank / size of the
        set)."""
        return int(self.calibration.size)

    def __len__(self) -> int:
        return len(self._index)

    def score(
        self,
        vectors: NDArray[np.float32],
        *,
        neighbours: int = 3,
        without_images: Collection[int] = (),
        without_names: Collection[str] = (),
    ) -> GroupScore:
        """How far a set lies from the normal sets, and which members put it there.

        A stored set must not vouch for itself: drawn sets that hold one of `without_images`, and the registered
        groups `without_names`, do not count for it.

        Shapes: vectors (m, D), in the order of the set (which only concat looks at).
        Units:  the metric's distance; larger = stranger.

        Raises:
            SetSizeMismatch: the set is empty, or not of `set_size`.
            NothingToCompare: fewer than k reference sets are left.
            WidthMismatch, NotFinite: from the index.
        """
        m = vectors.shape[0]
        if self.set_size is not None and m != self.set_size:
            raise SetSizeMismatch(
                f"The set of images must hold {self.set_size} images, as the sets it is compared with; got {m}."
            )
        members = _prepared(vectors, self._params)
        pooled = pool(members, self.pooling)[None, :]
        allowed = self._others(without_images, without_names)
        left = len(self._index) if allowed is None else allowed.size
        if left < self.k:
            raise NothingToCompare(
                f"At least {self.k} normal sets must share no image with the set asked about; got {left}. Score it "
                "against a larger bank, or register normal groups of other images."
            )
        found = self._index.search(pooled, min(max(self.k, neighbours, 1), left), allowed=allowed)
        nearest = int(found.ids[0, 0])
        reference = self._index.vectors(np.array([nearest], dtype=np.int64))[0]
        shown = [
            SetNeighbour(self._labels[number].name, self._labels[number].ids, float(distance))
            for number, distance in zip(
                found.ids[0, :neighbours].tolist(), found.distances[0, :neighbours].tolist(), strict=True
            )
        ]
        return GroupScore(
            score=float(mean_of_nearest(found.distances, self.k).astype(np.float32)[0]),
            neighbours=tuple(shown),
            shares=member_shares(members, reference, self.pooling, self._params.metric),
        )

    def _others(self, images: Collection[int], names: Collection[str]) -> NDArray[np.int64] | None:
        if not images and not names:
            return None
        asked = set(images)
        others = [
            number
            for number, label in enumerate(self._labels)
            if label.name not in names and asked.isdisjoint(label.ids)
        ]
        return np.array(others, dtype=np.int64)

    def _distances(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        if pooled.shape[0] == 0:
            return np.zeros(0, dtype=np.float32)
        return mean_of_nearest(self._index.search(pooled, self.k).distances, self.k).astype(np.float32)

    def _leave_one_out(self) -> NDArray[np.float32]:
        if len(self._index) < 2:
            return np.zeros(0, dtype=np.float32)
        _, nearest = every_nearest_others(self._index, self.k, GroupLedger())
        return mean_of_nearest(nearest.distances, self.k).astype(np.float32)


def registered_group_bank(
    groups: Mapping[str, NDArray[np.float32]],
    *,
    params: DN2Params,
    pooling: Pooling | str = Pooling.MEAN,
    k: int | None = None,
) -> GroupBank:
    """Registered normal groups as the reference, calibrated by leaving one group out at a time.

    Raises:
        BankTooSmall: no group is registered.
        SetSizeMismatch: a group is empty, or concat meets groups of different sizes.
    """
    kind = _pooling(pooling)
    if not groups:
        raise BankTooSmall("The registered groups must be at least 1; got 0.")
    sizes = {name: vectors.shape[0] for name, vectors in groups.items()}
    names = sorted(groups)
    if kind is Pooling.CONCAT:
        other = [name for name in names if sizes[name] != sizes[names[0]]]
        if other:
            raise SetSizeMismatch(
                f"Group `{other[0]}` must hold {sizes[names[0]]} images, as group `{names[0]}` does, to "
                f"be pooled by concat; got {sizes[other[0]]}."
            )
    return GroupBank(
        mode="registered",
        pooled=np.stack([pool(_prepared(groups[name], params), kind) for name in names]),
        labels=[SetNeighbour(name, (), 0.0) for name in names],
        calibration=None,
        set_size=sizes[names[0]] if kind is Pooling.CONCAT else None,
        pooling=kind,
        params=params,
        k=params.k if k is None else k,
    )


def drawn_group_bank(
    scorer: SetSource, set_size: int, *, pooling: Pooling | str = Pooling.MEAN, k: int | None = None
) -> GroupBank:
    """Sets drawn from the bank as the reference, calibrated by disjoint sets from its other half.

    A function of what the bank holds: the draw is seeded by the images' keys and nothing else.

    Memory: one set of vectors at a time, and at most 256 + 2,000 pooled vectors.

    Raises:
        SetSizeMismatch: `set_size` is below 1.
        BankTooSmall: half the bank cannot fill one set.
    """
    if set_size < 1:
        raise SetSizeMismatch(f"A set of images must hold at least 1 image; got {set_size}.")
    kind = _pooling(pooling)
    ids, keys = scorer.keys()
    reference_half, calibration_half = _halves(ids, keys, scorer.groups)
    if min(reference_half.size, calibration_half.size) < set_size:
        raise BankTooSmall(
            f"The bank must hold at least {2 * set_size} images to score a set of {set_size}, and "
            f"{images_needed(set_size)} for a verdict, or {REGISTERED_MIN} groups must be registered; "
            f"got {ids.size} images."
        )
    reference = _drawn(ids[reference_half], keys[reference_half], set_size, REFERENCE_SETS, repeat=True)
    held_out = _drawn(ids[calibration_half], keys[calibration_half], set_size, CALIBRATION_ROWS, repeat=False)
    return GroupBank(
        mode="drawn",
        pooled=_pooled_sets(scorer, reference, kind),
        labels=[SetNeighbour(None, tuple(members.tolist()), 0.0) for members in reference],
        calibration=_pooled_sets(scorer, held_out, kind),
        set_size=set_size,
        pooling=kind,
        params=scorer.params,
        k=scorer.params.k if k is None else k,
    )


def make_group_bank(
    scorer: LiveDN2,
    registered: Mapping[str, NDArray[np.float32]],
    set_size: int,
    *,
    pooling: Pooling | str = Pooling.MEAN,
    k: int | None = None,
) -> GroupBank:
    """The best reference there is for a set of this size.

    Registered groups when there are at least 10; else sets drawn from the bank; else, when the bank is too
    small, the few registered groups, whose calibration is then too small for a verdict.

    Raises:
        BankTooSmall: neither exists; the sentence says how many images are needed.
        SetSizeMismatch: concat, and the registered groups are of another size.
    """
    if len(registered) >= REGISTERED_MIN:
        return registered_group_bank(registered, params=scorer.params, pooling=pooling, k=k)
    if registered and len(scorer.bank) < 2 * set_size:
        return registered_group_bank(registered, params=scorer.params, pooling=pooling, k=k)
    return drawn_group_bank(scorer, set_size, pooling=pooling, k=k)


def images_needed(set_size: int) -> int:
    """Images a bank without registered groups must hold before a set of this size gets a verdict."""
    return 2 * VERDICT_MIN * set_size


def _pooling(pooling: Pooling | str) -> Pooling:
    try:
        return Pooling(pooling)
    except ValueError as error:
        known = ", ".join(f"`{kind}`" for kind in Pooling)
        raise ParameterInvalid(f"`pooling` of a set must be one of {known}; got {pooling!r}.") from error


def _prepared(vectors: NDArray[np.float32], params: DN2Params) -> NDArray[np.float32]:
    # For cosine the members are scaled before pooling: otherwise long vectors would speak louder in the mean.
    if vectors.ndim == 2 and (params.metric is Metric.COSINE or params.normalize):
        return unit_rows(vectors)
    return vectors


def _halves(
    ids: NDArray[np.int64], keys: NDArray[np.uint64], groups: GroupLedger
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the two halves of a bank, cut so that no tag is divided."""
    codes = groups.codes(ids)
    tag_keys = keys.copy()
    tags = np.where(codes < 0, -1 - np.arange(ids.size), codes)  # an image without a tag is its own
    _, tag = np.unique(tags, return_inverse=True)
    lowest = np.full(int(tag.max()) + 1 if ids.size else 0, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, tag, keys)
    tag_keys = lowest[tag]
    order = np.lexsort((ids, keys, tag, tag_keys))
    cuts = np.flatnonzero(np.diff(tag[order])) + 1
    if cuts.size == 0:
        return order, order[:0]
    cut = int(cuts[np.argmin(np.abs(2 * cuts - ids.size))])
    return order[:cut], order[cut:]


def _drawn(
    ids: NDArray[np.int64], keys: NDArray[np.uint64], set_size: int, count: int, *, repeat: bool
) -> list[NDArray[np.int64]]:
    """Sets of one size, no two with the same images: first disjoint ones, then, if they may repeat images, further
    shuffles of the same. The k nearest of a small bank would else be one set, k times."""
    sets: list[NDArray[np.int64]] = []
    known: set[frozenset[int]] = set()
    per_round = ids.size // set_size
    rounds = -(-count // per_round) if repeat else 1
    for turn in range(rounds):
        order = np.lexsort((ids, _mixed(keys, turn)))
        for start in range(0, per_round * set_size, set_size):
            if len(sets) == count:
                return sets
            members = ids[order[start : start + set_size]]
            if (images := frozenset(members.tolist())) not in known:
                known.add(images)
                sets.append(members)
    return sets


def _mixed(keys: NDArray[np.uint64], turn: int) -> NDArray[np.uint64]:
    """The keys shuffled anew for each turn: the finaliser of splitmix64, wrapping at 64 bits."""
    z = keys + np.uint64((turn + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def _pooled_sets(scorer: SetSource, sets: Sequence[NDArray[np.int64]], pooling: Pooling) -> NDArray[np.float32]:
    # What the bank stores has been normalised already where the parameters ask for it; cosine never is.
    scale = scorer.params.metric is Metric.COSINE
    pooled = []
    for members in sets:
        vectors = scorer.bank.vectors(members)
        pooled.append(pool(unit_rows(vectors) if scale else vectors, pooling))
    return np.stack(pooled)
