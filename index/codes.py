"""Exact search through a copy of the rows at a quarter of their size, which proves what it leaves out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.accelerator import Progress, Recall, Rows
from index.contract import NO_ID, Metric, Neighbours
from index.distances import pair_distances
from index.faiss_flat import MEASURED_ERROR, UNDERFLOW
from index.faiss_scan import UNTOLD_THREADS
from index.snapshot import StoredArray
from index.structures import StructureName
from index.threads import threads
from index.torch_scan import BLOCK_ROWS, GROUP_ROWS, SLACK, CodedRows, available, coded_queries, scan

UNCODED_MAX = 1024  # rows that may wait before coding is due; until then they are compared in float32
UNCODED_SHARE = 0.5  # with more of the rows waiting, all are compared in float32
GROWTH = 2.0  # beyond so many times the rows from which the centre was taken, all is coded again
BOUNDS_MAX = 1 << 24  # 64 MB of bounds at a time
MEASURED_PAIRS = 1024  # 2 MB of differences at width 512
EXTRA_GROUPS = 8  # beyond k: a few more rows measured first make the limit for the rest lower
UNIT_RANGE = (1e-12, 1e12)  # length of the longest row; beyond, float32 bounds could overflow or vanish
FAR = 1e4  # a query so many times longer than the longest row leaves nothing for the bounds to tell apart

# With fewer of the rows allowed, copying them together and comparing in float32 is faster than scanning all codes.
# The scan takes as long for one row as for all of 100,000: one query 4 ms, 16 queries 12 ms on one core; the copies
# take 0.9 and 3.8 ms for 3 %, 4.0 and 12 ms for 10 %.
ALLOWED_SHARE = 0.1


class Codes:
    """8-bit codes of the rows, with which the answers are those of the rows alone, to the bit.

    A row's code and what the coding lost bound its distance from below. The k rows with the lowest bounds are
    measured in float32; every row whose bound is not above the k-th of those distances is measured too; no other
    row can be nearer. Where a query leaves more than one row in 64 to be measured, as amid thousands of nearly equal
    rows, it is answered by the rows alone. So are rows without a code: those added or moved since.

    Memory: D + 33 bytes a row, and 64 MB of bounds for each search under way.
    """

    structure: StructureName = "scan"
    exact = True
    recall = Recall(1.0, 1.0)
    dead = 0

    def __init__(
        self,
        centre: NDArray[np.float32],
        unit: float,
        made_at: int,
        blocks: list[CodedRows],
        births: NDArray[np.int64],
    ) -> None:
        self._centre = centre
        self._unit = unit
        self._made_at = made_at  # rows when the centre was taken
        self._blocks = blocks  # whole blocks of places, the last one perhaps shorter
        self._births = births  # of the row that was coded at each place
        # Whether the row at that place is still that one; an infinite bound marks those that are not, or never were.
        self._valid = np.concatenate([np.isfinite(block.bounds[0]) for block in blocks] or [np.zeros(0, np.bool_)])
        self._n_valid = int(self._valid.sum())

    @property
    def lacking(self) -> int:
        """Places without a valid code."""
        return len(self._births) - self._n_valid

    @property
    def memory_bytes(self) -> int:
        return len(self._births) * (len(self._centre) + 24 + 9)

    def search(self, rows: Rows, asked: NDArray[np.float32], k: int, places: NDArray[np.int64] | None) -> Neighbours:
        """The K nearest. See `Accelerator.search`."""
        length = len(self._births)
        allowed = len(rows) if places is None else len(places)
        coded, uncoded = self._parts(len(rows), places)
        n_coded = allowed - len(uncoded)
        if (
            k > n_coded
            or k * ALLOWED_SHARE * GROUP_ROWS > length
            or allowed < ALLOWED_SHARE * length
            or len(uncoded) > UNCODED_SHARE * allowed
        ):
            return rows.nearest_at(asked, k, places)
        found = Neighbours.none(len(asked), k)
        terms = self._terms(coded)
        unproven: list[NDArray[np.int64]] = []
        step = max(1, BOUNDS_MAX // (length + BLOCK_ROWS))
        for start in range(0, len(asked), step):
            numbers = np.arange(start, min(start + step, len(asked)))
            unproven.append(self._scan(rows, asked, numbers, k, terms, found))
        if len(uncoded):
            found = _merged(found, rows.nearest_at(asked, k, uncoded))
        left = np.concatenate(unproven)
        if len(left):
            best = rows.nearest_at(asked[left], k, places)
            found.ids[left], found.distances[left] = best.ids, best.distances
        return found

    def settle(self, rows: Rows) -> None:
        """Leaves out the places whose row is no longer the one that was coded."""
        births = rows.births_by_place
        n = min(len(births), len(self._births))
        now = np.full(len(self._births), -1, dtype=np.int64)
        now[:n] = births[:n]
        self._leave_out(np.flatnonzero(now != self._births))

    def added(self, rows: Rows, first: int) -> None:
        """New rows wait without a code."""

    def removed(
        self,
        rows: Rows,  # noqa: ARG002 - places say enough
        gone: NDArray[np.int64],
        moved: NDArray[np.int64],
        holes: NDArray[np.int64],  # noqa: ARG002 - each is one of `gone`
    ) -> None:
        """Leaves out the places that hold another row now, or none."""
        changed = np.concatenate((gone, moved))
        self._leave_out(changed[changed < len(self._births)])

    def due(self, rows: Rows) -> str | None:
        """Why coding is due."""
        if len(rows) > GROWTH * self._made_at:
            return "grown beyond the rows it was centred on"
        return "rows without a code" if len(rows) - self._n_valid > UNCODED_MAX else None

    def export(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """See `Accelerator.export`; the codes are unpacked, so this costs D + 24 bytes a row meanwhile."""
        width = len(self._centre)
        codes = np.empty((len(self._births), width), dtype=np.int8)
        scales = np.empty(len(self._births), dtype=np.float64)
        start = 0
        for block in self._blocks:
            some = slice(start, start + len(block))
            codes[some], scales[some] = block.unpacked()
            start += len(block)
        arrays: dict[str, NDArray[Any]] = {
            "codes": codes,
            "scales": scales,
            "bounds": np.concatenate([block.bounds for block in self._blocks], axis=1),
            "centre": self._centre,
        }
        return arrays, {"unit": self._unit, "made_at": self._made_at, "block_rows": [len(b) for b in self._blocks]}

    @classmethod
    def restore(cls, rows: Rows, arrays: Mapping[str, StoredArray], facts: Mapping[str, Any]) -> "Codes | None":
        """The codes that were exported; None where this machine cannot use them."""
        if not exact_products():
            return None
        codes, scales, bounds = (arrays[name].view() for name in ("codes", "scales", "bounds"))
        blocks = []
        start = 0
        for n_rows in facts["block_rows"]:
            some = slice(start, start + n_rows)
            blocks.append(CodedRows.again(codes[some], scales[some], bounds[:, some].copy()))
            start += n_rows
        births = np.full(len(codes), -1, dtype=np.int64)
        n = min(len(rows), len(codes))
        births[:n] = np.where(np.isfinite(bounds[0, :n]), rows.births_by_place[:n], -1)
        return cls(arrays["centre"].read(), facts["unit"], facts["made_at"], blocks, births)

    def taken_over(self, block: int, start: int, births: NDArray[np.int64]) -> CodedRows | None:
        """The block with this number, where it holds the codes of exactly these rows."""
        if block < len(self._blocks) and len(self._blocks[block]) == len(births):
            some = slice(start, start + len(births))
            if np.array_equal(self._births[some], births):
                return self._blocks[block]
        return None

    @property
    def frame(self) -> tuple[NDArray[np.float32], float, int]:
        """Centre, unit and the number of rows from which they were taken."""
        return self._centre, self._unit, self._made_at

    def _leave_out(self, places: NDArray[np.int64]) -> None:
        # An infinite bound: whatever the query, such a place is never looked at.
        start = 0
        for block in self._blocks:
            of_block = places[(places >= start) & (places < start + len(block))]
            block.bounds[0, of_block - start] = np.inf
            start += len(block)
        self._valid[places] = False
        self._n_valid = int(self._valid.sum())

    def _parts(
        self, n_rows: int, places: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """The allowed places that have a code, None for all that have one, and the allowed ones that have none."""
        length = len(self._births)
        if places is None:
            waiting = np.flatnonzero(~self._valid[:n_rows])
            return None, np.concatenate((waiting, np.arange(min(length, n_rows), n_rows)))
        has = places < length
        has[has] = self._valid[places[has]]
        return places[has], places[~has]

    def _terms(self, coded: NDArray[np.int64] | None) -> list[NDArray[np.float32]]:
        """Each block's terms, infinite above places that are not to be found."""
        if coded is None:
            return [block.bounds for block in self._blocks]
        chosen = np.zeros(len(self._births), dtype=np.bool_)
        chosen[coded] = True
        terms = []
        start = 0
        for block in self._blocks:
            of_block = block.bounds.copy()
            of_block[0, ~chosen[start : start + len(block)]] = np.inf
            terms.append(of_block)
            start += len(block)
        return terms

    def _scan(
        self,
        rows: Rows,
        asked: NDArray[np.float32],
        numbers: NDArray[np.int64],
        k: int,
        terms: list[NDArray[np.float32]],
        found: Neighbours,
    ) -> NDArray[np.int64]:
        """Fills in the neighbours of these queries; the numbers of those that leave too many rows to measure."""
        coded = coded_queries(asked[numbers], self._centre, self._unit)
        near = coded.squares <= FAR**2
        bounds, lowest = scan(self._blocks, terms, coded, threads() or UNTOLD_THREADS)
        limits = self._limits(rows, asked[numbers], k, bounds, lowest, coded.steps, coded.squares)
        # Groups, then rows, whose bound does not exclude them.
        of, groups = np.nonzero(lowest <= limits[:, None])
        of_groups = bounds.reshape(len(numbers), -1, GROUP_ROWS)[of, groups]
        pairs, offsets = np.nonzero((of_groups <= limits[of, None]) & (of_groups < np.inf))
        of, places = of[pairs], groups[pairs] * GROUP_ROWS + offsets
        few = near & (np.bincount(of, minlength=len(numbers)) <= max(4 * k, len(self._births) // 64, 256))
        kept = few[of]
        _fill(rows, asked, numbers, of[kept], places[kept], k, found)
        return numbers[~few]

    def _limits(
        self,
        rows: Rows,
        queries: NDArray[np.float32],
        k: int,
        bounds: NDArray[np.float32],
        lowest: NDArray[np.float32],
        steps: NDArray[np.float64],
        squares: NDArray[np.float64],
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
        distances = rows.measured(queries, np.where(there, places, 0))
        distances[~there] = np.inf
        kth = np.partition(distances, k - 1, axis=1)[:, k - 1].astype(np.float64)
        square = kth**2 if rows.metric is Metric.L2 else 2 * kth
        far = (square * (1 + MEASURED_ERROR) + UNDERFLOW) / self._unit**2 - squares * (1 - SLACK)
        limits: NDArray[np.float32] = np.nextafter((far / steps).astype(np.float32), np.float32(np.inf))
        return limits


def build_codes(rows: Rows, previous: Codes | None, progress: Progress) -> Codes | None:
    """Codes of the rows now there; None where they cannot be coded. Runs beside searches and changes.

    Blocks of `previous` in which nothing changed are taken over.
    """
    if not exact_products():
        return None
    if previous is not None and len(rows) > GROWTH * previous.frame[2]:
        previous = None
    # First the births, then the rows: a place whose birth is the same later holds the row that is read here, since a
    # row is written before its birth and a birth never returns to a place that it left.
    births = rows.births_by_place.copy()
    stored = rows.rows_by_place
    n_rows = min(len(births), len(stored))
    births = births[:n_rows]
    if previous is None:
        centre, longest = _centre(stored[:n_rows])
        if not UNIT_RANGE[0] < longest < UNIT_RANGE[1]:
            return None
        frame = centre, longest, n_rows
    else:
        frame = previous.frame
    blocks = []
    for block, start in enumerate(range(0, n_rows, BLOCK_ROWS)):
        progress(start, n_rows)
        stop = min(start + BLOCK_ROWS, n_rows)
        taken = previous and previous.taken_over(block, start, births[start:stop])
        blocks.append(taken or CodedRows(stored[start:stop], *frame[:2]))
    progress(n_rows, n_rows)
    made = Codes(*frame, blocks, births)
    if previous is not None and made.lacking > UNCODED_MAX:
        return build_codes(rows, None, progress)  # rows so far from the old centre that they cannot have a code
    return made


def exact_products() -> bool:
    """Whether this machine multiplies 8-bit matrices exactly; asked once."""
    if not _checked:
        _checked.append(available())
    return _checked[0]


_checked: list[bool] = []


def _fill(
    rows: Rows,
    asked: NDArray[np.float32],
    numbers: NDArray[np.int64],
    of: NDArray[np.int64],
    places: NDArray[np.int64],
    k: int,
    found: Neighbours,
) -> None:
    """The k nearest of each query's listed places; `of` ascends and says which query a place is listed for."""
    distances = np.empty(len(of), dtype=np.float32)
    stored = rows.rows_by_place
    for start in range(0, len(of), MEASURED_PAIRS):
        some = slice(start, start + MEASURED_PAIRS)
        distances[some] = pair_distances(rows.metric, asked[numbers[of[some]]], stored[places[some]])
    ids = rows.ids_by_place[places]
    order = np.lexsort((ids, distances, of))
    first = np.searchsorted(of, np.arange(len(numbers)))
    rank = np.arange(len(of)) - first[of]
    best = order[rank < k]
    found.ids[numbers[of[best]], rank[rank < k]] = ids[best]
    found.distances[numbers[of[best]], rank[rank < k]] = distances[best]


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
    centre = (total / max(1, len(rows))).astype(np.float32)
    longest = 0.0
    for start in range(0, len(rows), BLOCK_ROWS):
        centred = rows[start : start + BLOCK_ROWS] - centre
        longest = max(longest, float(np.einsum("nd,nd->n", centred, centred, dtype=np.float64).max()))
    return centre, longest**0.5
