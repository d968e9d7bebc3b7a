"""Exact search through a copy of the rows at a quarter of their size, which proves what it leaves out."""

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.contract import NO_ID, Metric, Neighbours
from index.distances import as_count, pair_distances
from index.faiss_flat import MEASURED_ERROR, UNDERFLOW, FlatIndex
from index.faiss_scan import UNTOLD_THREADS
from index.threads import threads
from index.torch_scan import BLOCK_ROWS, GROUP_ROWS, SLACK, CodedRows, available, coded_queries, scan

ROWS_MIN = 10_000  # below, the copy gains less than it costs to keep
UNCODED_MAX = 1024  # rows that may wait before they are coded; until then FAISS compares them in float32
BOUNDS_MAX = 1 << 24  # 64 MB of bounds at a time
MEASURED_PAIRS = 1024  # 2 MB of differences at width 512
EXTRA_GROUPS = 8  # beyond k: a few more rows measured first make the limit for the rest lower
UNIT_RANGE = (1e-12, 1e12)  # length of the longest row; beyond, float32 bounds could overflow or vanish
FAR = 1e4  # a query so many times longer than the longest row leaves nothing for the bounds to tell apart

# With fewer of the rows allowed, copying them together and comparing in float32 is faster than scanning all codes.
# The scan takes as long for one row as for all of 100,000: one query 4 ms, 16 queries 12 ms on one core; the copies
# take 0.9 and 3.8 ms for 3 %, 4.0 and 12 ms for 10 %.
ALLOWED_SHARE = 0.1


@dataclass(slots=True)
class _Codes:
    """The coded copy: whole blocks of places, the last one perhaps shorter."""

    centre: NDArray[np.float32]
    unit: float
    made_at: int  # rows when the centre was taken
    blocks: list[CodedRows] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)  # places whose row is another one by now

    @property
    def length(self) -> int:
        return BLOCK_ROWS * (len(self.blocks) - 1) + len(self.blocks[-1]) if self.blocks else 0


class ScanIndex(FlatIndex):
    """The same answers as `ExactIndex`, to the bit, from 10,000 rows on through 8-bit codes of the rows.

    A row's code and what the coding lost bound its distance from below. The k rows with the lowest bounds are
    measured in float32; every row whose bound is not above the k-th of those distances is measured too; no other
    row can be nearer. Where a query leaves more than one row in 64 to be measured, as amid thousands of nearly equal
    rows, it is answered as by `FlatIndex`.

    Memory: beside that of `FlatIndex`, D + 24 bytes a row from 10,000 rows on and 64 MB of bounds for each search
            under way. On a machine whose torch has no exact 8-bit products it is a `FlatIndex`.
    The first search after many changes codes the new rows, about a second for each 100,000 of width 512; searches
    beside it compare float32 rows meanwhile.
    """

    def __init__(self, *, width: int, metric: Metric) -> None:
        super().__init__(width=width, metric=metric)
        self._codes: _Codes | None = None
        self._coding = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes reserved for rows, ids and codes."""
        codes = 0 if self._codes is None else self._codes.length * (self.width + 24)
        return super().memory_bytes + codes

    def search(self, queries: ArrayLike, k: int, *, allowed: ArrayLike | None = None) -> Neighbours:
        """The K nearest rows of each query. See `VectorIndex.search`."""
        k = as_count(k, what="k")
        asked = self._query_rows(queries)
        codes = self._current_codes() if len(asked) else None
        if codes is None or k * ALLOWED_SHARE * GROUP_ROWS > codes.length:
            return super().search(asked, k, allowed=allowed)
        places = self._allowed_places(allowed)
        if places is not None and len(places) < ALLOWED_SHARE * codes.length:
            return super().search(asked, k, allowed=allowed)
        coded, uncoded = self._parts(codes, places)
        if k > len(coded):
            return super().search(asked, k, allowed=allowed)
        found = Neighbours.none(len(asked), k)
        terms = _terms(codes, coded)
        unproven: list[NDArray[np.int64]] = []
        step = max(1, BOUNDS_MAX // (codes.length + BLOCK_ROWS))
        for start in range(0, len(asked), step):
            numbers = np.arange(start, min(start + step, len(asked)))
            unproven.append(self._scan(asked, numbers, k, codes, terms, found))
        left = np.concatenate(unproven)
        if len(left):
            best = super().search(asked[left], k, allowed=self._ids.values[coded])
            found.ids[left], found.distances[left] = best.ids, best.distances
        if len(uncoded):
            found = _merged(found, super().search(asked, k, allowed=self._ids.values[uncoded]))
        return found

    def _replaced(self, places: NDArray[np.int64], length: int) -> None:
        codes = self._codes
        if codes is None:
            return
        if len(self) < ROWS_MIN:
            self._codes = None
            return
        while codes.blocks and codes.length > length:
            codes.blocks.pop()
        coded = codes.length
        codes.stale = {place for place in codes.stale if place < coded}
        codes.stale.update(places[places < coded].tolist())
        if not codes.blocks:
            self._codes = None

    def _current_codes(self) -> _Codes | None:
        """The codes to search by, None where there are none; brings them up to date where too many rows wait."""
        n_rows, codes = len(self), self._codes
        if n_rows < ROWS_MIN or not _exact():
            return None
        if codes is not None and len(codes.stale) + n_rows - codes.length <= UNCODED_MAX:
            return codes
        if not self._coding.acquire(blocking=False):
            return None  # another search is at it; until it is done, float32 rows answer
        try:
            codes = self._codes
            if codes is None or n_rows > 2 * codes.made_at:
                centre, longest = _centre(self._searched.values)
                if not UNIT_RANGE[0] < longest < UNIT_RANGE[1]:
                    self._codes = None
                    return None
                codes = _Codes(centre, longest, n_rows)
            if len(codes.stale) + n_rows - codes.length > UNCODED_MAX:
                codes = self._coded(codes)
            self._codes = codes
            return codes
        finally:
            self._coding.release()

    def _coded(self, codes: _Codes) -> _Codes:
        """The same codes with no row missing; those given stay as they are, for searches under way."""
        rows = self._searched.values
        blocks = []
        for block, start in enumerate(range(0, len(rows), BLOCK_ROWS)):
            stop = min(start + BLOCK_ROWS, len(rows))
            whole = block < len(codes.blocks) and len(codes.blocks[block]) == stop - start
            if whole and not any(start <= place < stop for place in codes.stale):
                blocks.append(codes.blocks[block])
            else:
                blocks.append(CodedRows(rows[start:stop], codes.centre, codes.unit))
        return _Codes(codes.centre, codes.unit, codes.made_at, blocks)

    def _parts(self, codes: _Codes, places: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The allowed places that have a code, and those that have none."""
        if places is None:
            places = np.arange(len(self))
        has = places < codes.length
        if codes.stale:
            has &= ~np.isin(places, np.fromiter(codes.stale, dtype=np.int64))
        return places[has], places[~has]

    def _scan(
        self,
        asked: NDArray[np.float32],
        numbers: NDArray[np.int64],
        k: int,
        codes: _Codes,
        terms: list[NDArray[np.float32]],
        found: Neighbours,
    ) -> NDArray[np.int64]:
        """Fills in the neighbours of these queries; the numbers of those that leave too many rows to measure."""
        coded = coded_queries(asked[numbers], codes.centre, codes.unit)
        near = coded.squares <= FAR**2
        bounds, lowest = scan(codes.blocks, terms, coded, threads() or UNTOLD_THREADS)
        limits = self._limits(asked[numbers], k, bounds, lowest, coded.steps, coded.squares, codes.unit)
        # Groups, then rows, whose bound does not exclude them.
        rows, groups = np.nonzero(lowest <= limits[:, None])
        of_groups = bounds.reshape(len(numbers), -1, GROUP_ROWS)[rows, groups]
        pairs, offsets = np.nonzero((of_groups <= limits[rows, None]) & (of_groups < np.inf))
        rows, places = rows[pairs], groups[pairs] * GROUP_ROWS + offsets
        few = near & (np.bincount(rows, minlength=len(numbers)) <= max(4 * k, codes.length // 64, 256))
        kept = few[rows]
        self._fill(asked, numbers, rows[kept], places[kept], k, found)
        return numbers[~few]

    def _limits(
        self,
        queries: NDArray[np.float32],
        k: int,
        bounds: NDArray[np.float32],
        lowest: NDArray[np.float32],
        steps: NDArray[np.float64],
        squares: NDArray[np.float64],
        unit: float,
    ) -> NDArray[np.float32]:
        """The largest bound that a row within the k-th of some measured distances can have: (Q,)."""
        n = k + EXTRA_GROUPS
        if 2 * n < lowest.shape[1]:
            groups = np.argpartition(lowest, n - 1, axis=1)[:, :n]
            grouped = bounds.reshape(len(queries), -1, GROUP_ROWS)
            offsets = np.take_along_axis(grouped, groups[:, :, None], axis=1).argmin(axis=2)
            places = groups * GROUP_ROWS + offsets
        else:
            places = np.argpartition(bounds, k - 1, axis=1)[:, :k]
        # A group may hold no allowed row; its bound is infinite, and so must its distance be.
        there = np.isfinite(np.take_along_axis(bounds, places, axis=1))
        distances = self._measured(queries, np.where(there, places, 0))
        distances[~there] = np.inf
        kth = np.partition(distances, k - 1, axis=1)[:, k - 1].astype(np.float64)
        square = kth**2 if self.metric is Metric.L2 else 2 * kth
        far = (square * (1 + MEASURED_ERROR) + UNDERFLOW) / unit**2 - squares * (1 - SLACK)
        limits: NDArray[np.float32] = np.nextafter((far / steps).astype(np.float32), np.float32(np.inf))
        return limits

    def _fill(
        self,
        asked: NDArray[np.float32],
        numbers: NDArray[np.int64],
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        k: int,
        found: Neighbours,
    ) -> None:
        """The k nearest of each query's listed places; `rows` ascend and say which query a place is listed for."""
        distances = np.empty(len(rows), dtype=np.float32)
        stored = self._searched.values
        for start in range(0, len(rows), MEASURED_PAIRS):
            some = slice(start, start + MEASURED_PAIRS)
            distances[some] = pair_distances(self.metric, asked[numbers[rows[some]]], stored[places[some]])
        ids = self._ids.values[places]
        order = np.lexsort((ids, distances, rows))
        first = np.searchsorted(rows, np.arange(len(numbers)))
        rank = np.arange(len(rows)) - first[rows]
        best = order[rank < k]
        found.ids[numbers[rows[best]], rank[rank < k]] = ids[best]
        found.distances[numbers[rows[best]], rank[rank < k]] = distances[best]


def _terms(codes: _Codes, coded: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Each block's terms, infinite above places that are not to be found."""
    if len(coded) == codes.length:
        return [block.bounds for block in codes.blocks]
    chosen = np.zeros(codes.length, dtype=np.bool_)
    chosen[coded] = True
    terms = []
    start = 0
    for block in codes.blocks:
        of_block = block.bounds.copy()
        of_block[0, ~chosen[start : start + len(block)]] = np.inf
        terms.append(of_block)
        start += len(block)
    return terms


def _merged(one: Neighbours, other: Neighbours) -> Neighbours:
    """The k nearest of two answers that have no row in common."""
    k = one.ids.shape[1]
    ids = np.concatenate((one.ids, other.ids), axis=1)
    distances = np.concatenate((one.distances, other.distances), axis=1)
    ordered = np.where(ids == NO_ID, np.iinfo(np.int64).max, ids)
    order = np.lexsort((ordered, distances), axis=-1)[:, :k]
    return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(distances, order, 1))


def _centre(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The mean of the rows and the length of the longest row seen from there."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), BLOCK_ROWS):
        total += np.add.reduce(rows[start : start + BLOCK_ROWS], axis=0, dtype=np.float64)
    centre = (total / len(rows)).astype(np.float32)
    longest = 0.0
    for start in range(0, len(rows), BLOCK_ROWS):
        centred = rows[start : start + BLOCK_ROWS] - centre
        longest = max(longest, float(np.einsum("nd,nd->n", centred, centred, dtype=np.float64).max()))
    return centre, longest**0.5


_checked: list[bool] = []


def _exact() -> bool:
    if not _checked:
        _checked.append(available())
    return _checked[0]
