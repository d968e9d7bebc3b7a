"""Which pictures lie close together: pairs by embedding, told apart by a hash of what they look like."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from app.core import Core
from app.duplicates import repository
from app.errors import BytesDamaged, Conflict, NotFound
from app.jobs.context import JobContext
from app.shelf import CollectionState
from models.errors import InputError
from models.perceptual import hash_distance, perceptual_hash

BLOCK_ROWS = 64  # searched under one hold of the collection's lock
HASHED_AT_ONCE = 4  # images that are read or decoded
NEIGHBOURS_FIRST = 16
NEIGHBOURS_MAX = 1024
PAIRS_MAX = 20_000_000  # found in both directions: 2 GB while they are made single; a wide bound could find any number
SAMPLE = 32  # images whose altered copies say how far copies lie
SAMPLE_SHARE = 0.95  # of those copies that are within the bound
UNREADABLE = (NotFound, BytesDamaged, InputError)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of pictures by their place in the list searched, the lower place first, and their distances."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distances: NDArray[np.float32]

    def chosen(self, which: NDArray[np.bool_]) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.first[which], self.second[which], self.distances[which])


@dataclass(frozen=True, slots=True)
class Member:
    """A picture in a set: its place, the nearest of the others, and the number of that pair."""

    place: int
    nearest: int
    pair: int


def close_pairs(state: CollectionState, pks: NDArray[np.int64], bound: float, context: JobContext) -> tuple[Pairs, int]:
    """Every pair at most `bound` apart, and how many pictures have more close neighbours than are looked at.

    Memory: the pairs; the collection is searched in blocks of 64 pictures. Raises Conflict where they are too many.
    """
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    crowded = count = 0
    for start in range(0, pks.size, BLOCK_ROWS):
        context.progress(start, int(pks.size), "comparing")
        rows = np.arange(start, min(start + BLOCK_ROWS, pks.size))
        k = NEIGHBOURS_FIRST
        while rows.size:
            with state.lock.read():
                rows = rows[state.entries.known(pks[rows])]
                if not rows.size:
                    break
                near = state.nearest(state.vectors(pks[rows]), min(k, int(pks.size)), pks)
            within = np.logical_and(near.distances <= bound, near.ids >= 0)
            full: NDArray[np.bool_] = np.asarray(within.all(axis=1)) & (k < pks.size)
            done = ~full
            if k >= NEIGHBOURS_MAX:
                crowded += int(full.sum())
                done[:] = True
            which, column = np.nonzero(within & done[:, None])
            count += which.size
            if count > PAIRS_MAX:
                raise Conflict(
                    f"More than {PAIRS_MAX // 2} pairs lie within {bound:g}, after {start + rows.size} of {pks.size} "
                    "pictures; give a smaller `near_distance` or `similar_distance`.",
                    "too_many_pairs",
                )
            found.append((rows[which], np.searchsorted(pks, near.ids[which, column]), near.distances[which, column]))
            rows, k = rows[~done], k * 4
    if not found:
        empty = np.empty(0, np.int64)
        return Pairs(empty, empty, np.empty(0, np.float32)), 0
    one, other, distances = (np.concatenate([part[number] for part in found]) for number in range(3))
    low, high = np.minimum(one, other), np.maximum(one, other)
    apart = low != high
    _, unique = np.unique(low[apart] * pks.size + high[apart], return_index=True)
    return Pairs(low[apart][unique], high[apart][unique], distances[apart][unique]), crowded


def hash_pixels(core: Core, state: CollectionState, role: str | None, context: JobContext) -> set[str]:
    """Hash the pixels of images that may have those of others; the hashes of bytes that cannot be read.

    What is hashed once is noted beside the image and not hashed again.
    """
    with core.database.read() as session:
        wanted = repository.to_hash(session, state.id, role)
    unreadable: set[str] = set()
    with ThreadPoolExecutor(HASHED_AT_ONCE, thread_name_prefix="hash-pixels") as threads:
        for start in range(0, len(wanted), BLOCK_ROWS):
            context.progress(start, len(wanted), "hashing pixels")
            some = wanted[start : start + BLOCK_ROWS]
            found = dict(zip(some, threads.map(partial(_pixel_hash, core), some), strict=True))
            known = {sha256: pixel_sha256 for sha256, pixel_sha256 in found.items() if pixel_sha256 is not None}
            unreadable |= found.keys() - known.keys()
            with core.database.write() as session:
                repository.note_pixels(session, state.id, known)
    return unreadable


def _pixel_hash(core: Core, sha256: str) -> str | None:
    try:
        return core.embedders.decoder.pixel_sha256(core.store.get(sha256))
    except UNREADABLE:
        return None


class Hashes:
    """Perceptual hashes of stored pictures, computed when first asked for."""

    def __init__(self, core: Core, state: CollectionState, pks: NDArray[np.int64]) -> None:
        self._core = core
        self._state = state
        self._pks = pks
        self._known: dict[int, int | None] = {}
        self.unreadable: set[str] = set()  # hashes of bytes that are gone, damaged or no picture

    def distances(self, pairs: Pairs, context: JobContext) -> NDArray[np.int64]:
        """In how many bits the two of each pair differ; 65 where one cannot be read."""
        result = np.full(pairs.first.size, 65, np.int64)
        for number, (a, b) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
            context.progress(number, int(pairs.first.size), "hashing")
            one, other = self._hash(a), self._hash(b)
            if one is not None and other is not None:
                result[number] = hash_distance(one, other)
        return result

    def _hash(self, place: int) -> int | None:
        if place not in self._known:
            sha256 = _bytes_of(self._state, int(self._pks[place]))
            self._known[place] = None if sha256 is None else self._made(sha256)
        return self._known[place]

    def _made(self, sha256: str) -> int | None:
        try:
            return perceptual_hash(self._core.embedders.decoder.grey(self._core.store.get(sha256)))
        except UNREADABLE:
            self.unreadable.add(sha256)
            return None


def sets_of(pairs: Pairs, count: int) -> list[list[Member]]:
    """Connected pictures, those of each set in order, the sets by their first picture."""
    if not pairs.first.size:
        return []
    graph = coo_array(  # type: ignore[no-untyped-call]
        (np.ones(pairs.first.size, np.int8), (pairs.first, pairs.second)), shape=(count, count)
    )
    _, labels = connected_components(graph, directed=False)
    nearest: dict[int, Member] = {}
    for pair in np.lexsort((pairs.second, pairs.first, pairs.distances)).tolist():
        a, b = int(pairs.first[pair]), int(pairs.second[pair])
        nearest.setdefault(a, Member(a, b, pair))
        nearest.setdefault(b, Member(b, a, pair))
    sets: dict[int, list[Member]] = {}
    for place in sorted(nearest):
        sets.setdefault(int(labels[place]), []).append(nearest[place])
    return list(sets.values())


def copy_distance(core: Core, state: CollectionState, pks: Sequence[int], context: JobContext) -> float:
    """How far copies of this collection's images lie from them: within it are 95 % of those made of a sample.

    The sample depends on the images' ids alone. Raises Conflict when no image's bytes can be read.
    """
    embedder = core.embedders.of(state)
    with state.lock.read():
        left = np.asarray(pks, np.int64)
        left = left[state.entries.known(left)]
        known = list(zip(state.entries.keys_of(left).tolist(), left.tolist(), strict=True))
    distances: list[float] = []
    for number, (_, pk) in enumerate(sorted(known)[:SAMPLE]):
        context.progress(number, min(SAMPLE, len(known)), "measuring copies")
        sha256 = _bytes_of(state, pk)
        try:
            copies = [] if sha256 is None else core.embedders.decoder.altered_copies(core.store.get(sha256))
        except UNREADABLE:
            continue
        prepared = [core.embedders.prepare_one(embedder.embedder, copy) for copy in copies]
        if prepared:
            vectors = state.dn2.prepared(embedder.projected(core.embedders.embed(embedder.network, prepared)))
            with state.lock.read():
                near = state.nearest(vectors, 1, np.array([pk], np.int64))
            distances.extend(near.distances[np.isfinite(near.distances)].tolist())
    if not distances:
        raise Conflict(
            "No image's bytes can be read, so nothing says how far copies lie; give `near_distance`.", "bytes_missing"
        )
    return float(np.quantile(distances, SAMPLE_SHARE))


def _bytes_of(state: CollectionState, pk: int) -> str | None:
    """The hash of an image's bytes; None when it is gone."""
    with state.lock.read():
        entry = state.entries.get(pk)
    return None if entry is None else entry.sha256
