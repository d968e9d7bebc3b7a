"""Search that may miss a neighbour: what the structures share, and how they earn their recall.

A structure only lists candidates. Their distances are measured from the float32 rows, so every distance that is
returned is right, and what a structure forgets can only cost recall.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.contract import Metric, Neighbours
from index.distances import as_count, as_ids
from index.faiss_flat import FlatIndex
from index.faiss_scan import rough_nearest
from index.rows import Column

RECALL = 0.99  # share of the true ten nearest
TUNED_K = 10
TUNING_QUERIES = 250
ROWS_MIN = 20_000  # below, comparing every row takes less than a millisecond or two
DEAD_SHARE = 0.2  # of the entries of a structure; beyond, it is due to be built again
GROWTH = 2.0  # likewise, once it holds so many times the rows that it was tuned for

# With fewer of the rows allowed every allowed row is compared. Graphs and lists follow the rows, not the filter: a
# filter that allows only far rows leaves them without the neighbours they promise.
ALLOWED_SHARE = 0.1
ALLOWED_ROWS = 20_000
LISTED_MAX = 0.25  # likewise where the candidates would be a larger share of the rows than this


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a structure looks."""

    breadth: int  # what the structure makes of it: candidates of a graph search, lists of an inverted file
    listed: int  # candidates that are measured

    def scaled(self, *, neighbours: float, share: float) -> "Effort":
        """Enough for so many times the neighbours it was tuned for, among this share of the rows."""
        return Effort(int(np.ceil(self.breadth * neighbours / share)), int(np.ceil(self.listed * neighbours)))


class Structure(Protocol):
    """Lists candidates for queries; its entries are numbered in the order in which they were added."""

    def add(self, rows: NDArray[np.float32], threads: int | None) -> None:
        """Appends entries; never at the same time as a search."""
        ...

    def search(
        self, queries: NDArray[np.float32], effort: Effort, chosen: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """Entries (Q, effort.listed), roughly nearest first, -1 where there are fewer; among those whose bit is set.

        An answer must not depend on the other queries.
        """
        ...

    def efforts(self) -> Iterator[list[Effort]]:
        """Lists of efforts of one breadth, from little to much; the last one looks as hard as is sensible."""
        ...

    def cost(self, effort: Effort) -> float:
        """What a search takes, in any unit."""
        ...

    @property
    def memory_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Built:
    """A structure, the rows that it was built from and the recall that it reached."""

    structure: Structure
    births: NDArray[np.int64]  # of the row of each entry
    effort: Effort
    recall: float
    lower: float  # recall less one standard error over the queries: this is held against the bar


class ApproximateIndex(FlatIndex):
    """Exact until a structure is built and adopted; from then on the nearest rows that the structure lists.

    `build` reads rows while others add, remove and search: what changes under it can only cost recall until the next
    build. `adopt` is a change like `add`. A structure is adopted only when it reached `recall` at ten neighbours on
    rows that were held out of it; otherwise the index stays exact. Removed rows leave dead entries, which are never
    returned. Where a filter allows few rows, or a structure lists fewer than K, the allowed rows are all compared.
    Snapshots hold the rows, not the structure: after loading, the index is exact until it is built again.

    Memory: that of `FlatIndex`, 16 bytes a row, and the structure's.
    """

    recall: float = RECALL

    def __init__(self, *, width: int, metric: Metric) -> None:
        super().__init__(width=width, metric=metric)
        self._births = Column(np.empty(0, dtype=np.int64))  # which addition each row was
        self._entries = Column(np.empty(0, dtype=np.int64))  # entry of the row at each place
        self._next_birth = 0
        self._built: Built | None = None
        self._place_of_entry = Column(np.empty(0, dtype=np.int64))  # -1 where dead
        self._dead = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes reserved for rows, ids and structure."""
        return super().memory_bytes + (0 if self._built is None else self._built.structure.memory_bytes)

    @property
    def built(self) -> Built | None:
        """The structure in use, with its recall; None while search is exact."""
        return self._built

    @property
    def entries(self) -> tuple[int, int]:
        """Entries of the structure that are alive, and dead ones."""
        total = len(self._place_of_entry.values)
        return total - self._dead, self._dead

    @property
    def build_due(self) -> bool:
        """Whether a structure, or a new one, is worth building."""
        if len(self) < ROWS_MIN:
            return False
        alive, dead = self.entries
        return self._built is None or dead > DEAD_SHARE * (alive + dead) or alive > GROWTH * len(self._built.births)

    def build(self, *, seed: int, threads: int = 1) -> Built | None:
        """A structure over the rows now there and its effort for `recall`; None when no effort reaches it.

        Repeats: the same rows, seed and one thread give the same structure; a graph built by several threads is
                 another one each time.
        Memory:  the structure, and for an inverted file its training sample.
        """
        # Views, not copies: additions go beyond them, and what removals move is another row's recall at worst.
        rows, births = self._searched.values, self._births.values.copy()
        random = np.random.default_rng(seed)
        n_held = min(TUNING_QUERIES, len(rows) // 10)
        if n_held < 1:
            return None
        order = np.sort(random.permutation(len(rows))[n_held:])
        held = np.setdiff1d(np.arange(len(rows)), order, assume_unique=True)
        structure = self._trained(rows, order, seed, threads)
        step = max(1, (1 << 25) // self.width)
        for start in range(0, len(order), step):
            structure.add(rows[order[start : start + step]], threads)
        queries = rows[held]
        true = rough_nearest(self.metric, queries, rows, min(TUNED_K, len(order)), order)[1]
        best: tuple[float, Effort, float, float] | None = None
        for efforts in structure.efforts():
            longest = max(efforts, key=lambda effort: effort.listed)
            listed = structure.search(queries, longest, None)
            for effort in efforts:
                if best is not None and structure.cost(effort) >= best[0]:
                    continue
                recall, lower = _reached(order, listed[:, : effort.listed], true)
                if lower >= self.recall:
                    best = structure.cost(effort), effort, recall, lower
            if best is not None and structure.cost(efforts[0]) >= best[0]:
                break
        if best is None:
            return None
        structure.add(queries, threads)
        return Built(structure, births[np.concatenate((order, held))], *best[1:])

    def adopt(self, built: Built | None) -> bool:
        """Whether the structure is now in use; it is not when there is none. A change, like `add`."""
        if built is None:
            return False
        ascending = np.argsort(built.births)
        at = np.searchsorted(built.births, self._births.values, sorter=ascending)
        at = ascending[np.minimum(at, len(ascending) - 1)]
        known = built.births[at] == self._births.values
        self._built = built
        self._entries.values[:] = np.where(known, at, -1)
        self._place_of_entry = Column(np.full(len(built.births), -1, dtype=np.int64))
        self._place_of_entry.values[at[known]] = np.flatnonzero(known)
        self._dead = len(built.births) - int(known.sum())
        self._enter(np.flatnonzero(~known))
        return True

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Store one row per id; either all or, on an error, none. See `VectorIndex.add`."""
        before = len(self)
        super().add(ids, vectors)
        new = len(self) - before
        self._births.append(np.arange(self._next_birth, self._next_birth + new))
        self._entries.append(np.full(new, -1, dtype=np.int64))
        self._next_birth += new
        if self._built is not None:
            self._enter(np.arange(before, len(self)))

    def remove(self, ids: ArrayLike) -> int:
        """How many of the ids were there; none of them is afterwards."""
        places = self._places_of(np.unique(as_ids(ids)))
        entries = self._entries.values[places[places >= 0]]
        removed = super().remove(ids)
        entries = entries[entries >= 0]
        self._place_of_entry.values[entries] = -1
        self._dead += len(entries)
        if not len(self):
            self._built = None
            self._place_of_entry = Column(np.empty(0, dtype=np.int64))
            self._dead = 0
        return removed

    def search(self, queries: ArrayLike, k: int, *, allowed: ArrayLike | None = None) -> Neighbours:
        """The nearest K rows of each query that the structure lists. See `VectorIndex.search`."""
        k = as_count(k, what="k")
        asked = self._query_rows(queries)
        built, places = self._built, self._allowed_places(allowed)
        n_allowed = len(self) if places is None else len(places)
        few = places is not None and n_allowed < max(ALLOWED_SHARE * len(self), min(ALLOWED_ROWS, len(self)))
        if built is None or few or not n_allowed or not len(asked):
            return super().search(asked, k, allowed=allowed)
        effort = built.effort.scaled(neighbours=max(1.0, k / TUNED_K), share=n_allowed / len(self))
        if effort.listed > LISTED_MAX * n_allowed:
            return super().search(asked, k, allowed=allowed)
        chosen = None
        if places is not None or self._dead:
            flags = np.zeros(len(self._place_of_entry.values), dtype=np.bool_)
            flags[self._entries.values if places is None else self._entries.values[places]] = True
            chosen = np.packbits(flags, bitorder="little")
        entries = built.structure.search(asked, effort, chosen)
        listed = np.where(entries >= 0, self._place_of_entry.values[entries], -1)
        found = Neighbours.none(len(asked), k)
        self._measure(asked, listed, found)
        short = np.flatnonzero(found.ids[:, min(k, n_allowed) - 1] < 0)
        if len(short):
            exact = super().search(asked[short], k, allowed=allowed)
            found.ids[short], found.distances[short] = exact.ids, exact.distances
        return found

    def _columns(self) -> list[Column]:
        return [*super()._columns(), self._births, self._entries]

    def _replaced(self, places: NDArray[np.int64], length: int) -> None:  # noqa: ARG002 - nothing here counts places
        entries = self._entries.values[places]
        entered = entries >= 0
        self._place_of_entry.values[entries[entered]] = places[entered]

    def _trained(self, rows: NDArray[np.float32], order: NDArray[np.int64], seed: int, threads: int) -> Structure:
        """A structure without entries, trained on some of the rows at these places."""
        raise NotImplementedError

    def _enter(self, places: NDArray[np.int64]) -> None:
        if self._built is None or not len(places):
            return
        self._built.structure.add(self._searched.values[places], None)
        first = len(self._place_of_entry.values)
        self._entries.values[places] = np.arange(first, first + len(places))
        self._place_of_entry.append(places)

    def _measure(self, asked: NDArray[np.float32], listed: NDArray[np.int64], found: Neighbours) -> None:
        """Fills in the nearest of the listed places."""
        distances = self._measured(asked, listed)
        distances[listed < 0] = np.inf
        ids = np.where(listed < 0, np.iinfo(np.int64).max, self._ids.values[listed])
        k = min(found.ids.shape[1], listed.shape[1])
        order = np.lexsort((ids, distances), axis=-1)[:, :k]
        nearest = np.take_along_axis(ids, order, axis=1)
        found.ids[:, :k] = np.where(nearest == np.iinfo(np.int64).max, -1, nearest)
        found.distances[:, :k] = np.take_along_axis(distances, order, axis=1)


def _reached(
    order: NDArray[np.int64],
    listed: NDArray[np.int64],
    true: NDArray[np.int64],
) -> tuple[float, float]:
    """Share of the true neighbours among the listed entries, and that less its standard error."""
    places = np.where(listed >= 0, order[listed], -1)
    found = (true[:, :, None] == places[:, None, :]).any(axis=2).mean(axis=1)
    recall = float(found.mean())
    # As if one more query had missed a neighbour: a sample without a miss does not prove that there is none.
    error = max(float(found.std()), 1 / true.shape[1] / len(found) ** 0.5) / len(found) ** 0.5
    return recall, recall - error
