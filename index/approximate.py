"""Search that may miss a neighbour: what graphs and lists share, and how they earn their recall.

A structure only lists candidates. Their distances are measured from the float32 rows, so every distance that is
returned is right, and what a structure forgets can only cost recall.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.accelerator import Progress, Recall, Rows
from index.columns import Column
from index.contract import Neighbours
from index.faiss_scan import rough_nearest
from index.snapshot import StoredArray
from index.structures import StructureName

RECALL = 0.99  # share of the true ten nearest
TUNED_K = 10
TUNING_QUERIES = 1000  # a query that ends in the wrong region misses all ten: 250 meet too few of those
BUILD_ROWS = 4096  # between two calls of progress
DEAD_SHARE = 0.2  # of the entries of a structure; beyond, it is due to be built again
GROWTH = 2.0  # likewise, once it holds so many times the rows that it was tuned for

# With fewer of the rows allowed every allowed row is compared. Graphs and lists follow the rows, not the filter: a
# filter that allows only far rows leaves them without the neighbours they promise.
ALLOWED_SHARE = 0.1
ALLOWED_ROWS = 20_000
MEASURED_ALONE = 4  # queries; of more, whole arrays at once take less time
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

    @property
    def structure(self) -> StructureName: ...

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

    def export(self) -> dict[str, NDArray[Any]]:
        """The arrays from which it can be made again; copies."""
        ...

    @property
    def memory_bytes(self) -> int: ...


class Trained(Protocol):
    """Makes a structure without entries, trained on some of the rows at the places in `order`."""

    def __call__(
        self, rows: NDArray[np.float32], order: NDArray[np.int64], seed: int, threads: int, progress: Progress
    ) -> Structure: ...


class Listed:
    """A structure beside the rows: it lists candidates, which are measured.

    Removed rows leave dead entries, which are never returned. Where a filter allows few rows, or a structure lists
    fewer than K, the allowed rows are all compared.

    Memory: the structure's and 16 bytes a row.
    """

    exact = False

    def __init__(
        self,
        candidates: Structure,
        effort: Effort,
        recall: Recall,
        *,
        births: NDArray[np.int64],
        built_rows: int,
    ) -> None:
        self._candidates = candidates
        self._effort = effort
        self.recall = recall
        self._births = births  # of the row of each entry; only until `settle`
        self._built_rows = built_rows
        self._entries = Column(np.empty(0, dtype=np.int64))  # entry of the row at each place, -1 where it has none
        self._place_of_entry = Column(np.empty(0, dtype=np.int64))  # -1 where dead
        self.dead = 0

    @property
    def structure(self) -> StructureName:
        return self._candidates.structure

    @property
    def effort(self) -> Effort:
        return self._effort

    @property
    def memory_bytes(self) -> int:
        of_columns = self._entries.reserved_bytes + self._place_of_entry.reserved_bytes
        return self._candidates.memory_bytes + of_columns

    def search(self, rows: Rows, asked: NDArray[np.float32], k: int, places: NDArray[np.int64] | None) -> Neighbours:
        """The nearest K rows of each query that the structure lists. See `Accelerator.search`."""
        n_rows = len(rows)
        n_allowed = n_rows if places is None else len(places)
        few = places is not None and n_allowed < max(ALLOWED_SHARE * n_rows, min(ALLOWED_ROWS, n_rows))
        if few or not n_allowed:
            return rows.nearest_at(asked, k, places)
        effort = self._effort.scaled(neighbours=max(1.0, k / TUNED_K), share=n_allowed / n_rows)
        if effort.listed > LISTED_MAX * n_allowed:
            return rows.nearest_at(asked, k, places)
        chosen = None
        if places is not None or self.dead:
            allowed = self._entries.values if places is None else self._entries.values[places]
            chosen = _bits(allowed, len(self._place_of_entry.values))
        entries = self._candidates.search(asked, effort, chosen)
        found = Neighbours.none(len(asked), k)
        if len(asked) <= MEASURED_ALONE:
            for number, listed in enumerate(entries):
                _measure_one(rows, asked, number, self._place_of_entry.values[listed[listed >= 0]], found)
        else:
            at = np.where(entries >= 0, self._place_of_entry.values[entries], -1)
            _measure(rows, asked, at, found)
        short = np.flatnonzero(found.ids[:, min(k, n_allowed) - 1] < 0)
        if len(short):
            exact = rows.nearest_at(asked[short], k, places)
            found.ids[short], found.distances[short] = exact.ids, exact.distances
        return found

    def settle(self, rows: Rows) -> None:
        """Joins rows and entries, and enters the rows that came since."""
        births = rows.births_by_place
        n_entries = len(self._births)
        ascending = np.argsort(self._births)
        at = np.searchsorted(self._births, births, sorter=ascending)
        at = ascending[np.minimum(at, n_entries - 1)]
        known = self._births[at] == births
        self._join(np.where(known, at, -1), n_entries)
        self._births = np.empty(0, dtype=np.int64)
        self._enter(rows, np.flatnonzero(~known))

    def added(self, rows: Rows, first: int) -> None:
        """Enters new rows."""
        self._entries.append(np.full(len(rows) - first, -1, dtype=np.int64))
        self._enter(rows, np.arange(first, len(rows)))

    def removed(self, rows: Rows, gone: NDArray[np.int64], moved: NDArray[np.int64], holes: NDArray[np.int64]) -> None:
        """Entries of rows that went are dead, those of rows that moved follow."""
        entries = self._entries.values
        dead = entries[gone]
        dead = dead[dead >= 0]
        self._place_of_entry.values[dead] = -1
        self.dead += len(dead)
        follow = entries[moved]
        entries[holes] = follow
        self._place_of_entry.values[follow[follow >= 0]] = holes[follow >= 0]
        self._entries.cut(len(rows))

    def due(self, rows: Rows) -> str | None:
        """Why it should be built again."""
        n_entries = len(self._place_of_entry.values)
        if self.dead > DEAD_SHARE * n_entries:
            return "many dead entries"
        return "grown beyond the rows it was tuned for" if len(rows) > GROWTH * self._built_rows else None

    def export(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """See `Accelerator.export`; the structure is copied."""
        arrays = {"entries": self._entries.values, **self._candidates.export()}
        facts = {
            "effort": asdict(self._effort),
            "recall": asdict(self.recall),
            "built_rows": self._built_rows,
            "n_entries": len(self._place_of_entry.values),
        }
        return arrays, facts

    @classmethod
    def restore(cls, candidates: Structure, arrays: Mapping[str, StoredArray], facts: Mapping[str, Any]) -> "Listed":
        """What was exported, with the structure made again from its bytes."""
        made = cls(
            candidates,
            Effort(**facts["effort"]),
            Recall(**facts["recall"]),
            births=np.empty(0, dtype=np.int64),
            built_rows=facts["built_rows"],
        )
        made._join(arrays["entries"].read(), facts["n_entries"])
        return made

    def _join(self, entries: NDArray[np.int64], n_entries: int) -> None:
        self._entries = Column(entries)
        places = np.full(n_entries, -1, dtype=np.int64)
        there = np.flatnonzero(entries >= 0)
        places[entries[there]] = there
        self._place_of_entry = Column(places)
        self.dead = n_entries - len(there)

    def _enter(self, rows: Rows, places: NDArray[np.int64]) -> None:
        if len(places):
            self._candidates.add(rows.rows_by_place[places], None)
            first = len(self._place_of_entry.values)
            self._entries.values[places] = np.arange(first, first + len(places))
            self._place_of_entry.append(places)


def build_listed(
    rows: Rows, trained: Trained, bar: float, *, seed: int, threads: int, progress: Progress
) -> Listed | None:
    """A structure over the rows now there, with its effort for this recall; None when no effort reaches it.

    Runs beside searches and changes: what changes under it can only cost recall until it is built again.

    Repeats: the same rows, seed and one thread give the same structure; a graph built by several threads is another
             one each time.
    Memory:  the structure, and for an inverted file its training sample.
    """
    # Views, not copies: additions go beyond them, and what removals move is another row's recall at worst.
    births = rows.births_by_place.copy()
    stored = rows.rows_by_place
    n_rows = min(len(births), len(stored))
    stored = stored[:n_rows]
    random = np.random.default_rng(seed)
    n_held = max(min(TUNING_QUERIES // 4, n_rows // 10), min(TUNING_QUERIES, n_rows // 40))
    if n_held < 1:
        return None
    order = np.sort(random.permutation(n_rows)[n_held:])
    held = np.setdiff1d(np.arange(n_rows), order, assume_unique=True)
    progress(0, n_rows)
    candidates = trained(stored, order, seed, threads, progress)
    for start in range(0, len(order), BUILD_ROWS):
        candidates.add(stored[order[start : start + BUILD_ROWS]], threads)
        progress(min(start + BUILD_ROWS, len(order)), n_rows)
    queries = stored[held]
    # What changed meanwhile is left out on both sides, else it would count as missed.
    same = np.flatnonzero(_unchanged(rows, births, order))
    if not len(same):
        return None
    chosen = None if len(same) == len(order) else _bits(same, len(order))
    true = rough_nearest(rows.metric, queries, stored, min(TUNED_K, len(same)), order[same])[1]
    best: tuple[float, Effort, Recall] | None = None
    for efforts in candidates.efforts():
        progress(len(order), n_rows)
        longest = max(efforts, key=lambda effort: effort.listed)
        listed = candidates.search(queries, longest, chosen)
        for effort in efforts:
            if best is not None and candidates.cost(effort) >= best[0]:
                continue
            recall = _reached(order, listed[:, : effort.listed], true)
            if recall.lower >= bar:
                best = candidates.cost(effort), effort, recall
        if best is not None and candidates.cost(efforts[0]) >= best[0]:
            break
    if best is None:
        return None
    candidates.add(queries, threads)
    progress(n_rows, n_rows)
    return Listed(candidates, *best[1:], births=births[np.concatenate((order, held))], built_rows=n_rows)


def _unchanged(rows: Rows, births: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the row at each place is the one that was there before, when these were the births of all."""
    now = np.full(len(births), -1, dtype=np.int64)
    current = rows.births_by_place[: len(births)]
    now[: len(current)] = current
    same: NDArray[np.bool_] = now[places] == births[places]
    return same


def _bits(chosen: NDArray[np.int64], n: int) -> NDArray[np.uint8]:
    flags = np.zeros(n, dtype=np.bool_)
    flags[chosen] = True
    return np.packbits(flags, bitorder="little")


def _measure_one(
    rows: Rows, asked: NDArray[np.float32], number: int, listed: NDArray[np.int64], found: Neighbours
) -> None:
    """Fills in the nearest of the places listed for one query, which may be none."""
    if not len(listed):
        return
    distances = rows.measured(asked[number : number + 1], listed[None])[0]
    ids = rows.ids_by_place[listed]
    order = np.lexsort((ids, distances))[: found.ids.shape[1]]
    found.ids[number, : len(order)] = ids[order]
    found.distances[number, : len(order)] = distances[order]


def _measure(rows: Rows, asked: NDArray[np.float32], listed: NDArray[np.int64], found: Neighbours) -> None:
    """Fills in the nearest of the listed places."""
    distances = rows.measured(asked, listed)
    distances[listed < 0] = np.inf
    ids = np.where(listed < 0, np.iinfo(np.int64).max, rows.ids_by_place[listed])
    k = min(found.ids.shape[1], listed.shape[1])
    order = np.lexsort((ids, distances), axis=-1)[:, :k]
    nearest = np.take_along_axis(ids, order, axis=1)
    found.ids[:, :k] = np.where(nearest == np.iinfo(np.int64).max, -1, nearest)
    found.distances[:, :k] = np.take_along_axis(distances, order, axis=1)


def _reached(order: NDArray[np.int64], listed: NDArray[np.int64], true: NDArray[np.int64]) -> Recall:
    """Share of the true neighbours among the listed entries, and that less its standard error."""
    places = np.where(listed >= 0, order[listed], -1)
    found = (true[:, :, None] == places[:, None, :]).any(axis=2).mean(axis=1)
    recall = float(found.mean())
    # As if one more query had missed a neighbour: a sample without a miss does not prove that there is none.
    error = max(float(found.std()), 1 / true.shape[1] / len(found) ** 0.5) / len(found) ** 0.5
    return Recall(recall, recall - error)
