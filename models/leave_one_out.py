"""Nearest neighbours of bank images among the *other* bank images: the raw material of calibration.

`LeaveOneOutTable` keeps, for at most 2,000 calibration rows of a bank, the nearest others while the bank
grows and shrinks. The rows are those with the smallest keys (a key is a hash of the image's own id), so
they are a function of what the bank holds and not of the order in which it came, and a random sample of it
whatever the ids look like.

Nothing is its own neighbour, and an image that carries a `group` (part, camera, day) is not compared with
its group
either: near-duplicates would make every bank image look less strange than any new image can.

Why few rows change. A new image can only push itself into the lists of the rows it is close to, so adding B
images costs B distances a row. A removed image shortens the lists that held it; what is left of such a list
is still exactly the nearest ones, only fewer, and a row is searched again when fewer are left than are
asked for.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import Metric, Neighbours, VectorIndex
from index.distances import pair_distances, unit_rows
from models.errors import ParameterInvalid

CALIBRATION_ROWS = 2000
"""Most rows a calibration rests on: at 1 % the border of 2,000 has a spread of about 0.6 to 1.5 %."""

DEPTH = 16
"""Neighbours remembered per row; a larger k is searched when it is asked for."""

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""

_SEARCH_ROWS = 256  # queries in one search: bounds the memory of any index behind it
_MERGE_ROWS = 1024  # new images compared with the calibration rows at once
_PAIRS = 1024  # vectors measured against one another at once: 2 MB at width 512
_EAGER_ROWS = 1024  # larger batches leave the search for their own calibration rows to the first reader
_WIDEST = 64  # extra neighbours fetched to see past a group; larger groups are searched by restriction


class GroupLedger:
    """Which ids were taken together, and therefore must not vouch for one another."""

    def __init__(self) -> None:
        self._code_of_group: dict[str, int] = {}
        self._code_of_id: dict[int, int] = {}
        self._members: dict[int, set[int]] = {}
        self._codes_given = 0
        self._largest: int | None = 1  # None: to be counted again

    def add(self, ids: Iterable[int], groups: Iterable[str | None]) -> None:
        """Enter ids with their group; those without one stand alone."""
        for number, group in zip(ids, groups, strict=True):
            if group is None:
                continue
            code = self._code_of_group.get(group)
            if code is None:
                code = self._code_of_group[group] = self._codes_given
                self._members[code] = set()
                self._codes_given += 1
            self._code_of_id[int(number)] = code
            self._members[code].add(int(number))
            self._largest = None

    def remove(self, ids: Iterable[int]) -> None:
        """Forget ids; unknown ones are ignored."""
        for number in ids:
            code = self._code_of_id.pop(int(number), None)
            if code is not None:
                self._members[code].discard(int(number))
                self._largest = None
        if self._largest is None:
            empty = {code for code, members in self._members.items() if not members}
            if empty:
                self._members = {c: members for c, members in self._members.items() if c not in empty}
                self._code_of_group = {g: c for g, c in self._code_of_group.items() if c not in empty}

    def __bool__(self) -> bool:
        return bool(self._code_of_id)

    def members(self, number: int) -> NDArray[np.int64]:
        """The id itself and all that share its group, ascending."""
        code = self._code_of_id.get(int(number))
        numbers = [int(number)] if code is None else sorted(self._members[code])
        return np.array(numbers, dtype=np.int64)

    def size(self, number: int) -> int:
        """How many ids an id stands for: its group's members, or 1."""
        code = self._code_of_id.get(int(number))
        return 1 if code is None else len(self._members[code])

    def largest(self) -> int:
        """Members of the largest group; 1 when nobody has a group."""
        if self._largest is None:
            self._largest = max((len(members) for members in self._members.values()), default=1)
        return self._largest

    def codes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number per id, equal for ids of one group; -1 for those that stand alone.

        Shapes: any -> the same.
        """
        if not self._code_of_id:
            return np.full(ids.shape, -1, dtype=np.int64)
        flat = [self._code_of_id.get(number, -1) for number in ids.ravel().tolist()]
        return np.array(flat, dtype=np.int64).reshape(ids.shape)


def nearest_others(
    index: VectorIndex,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    k: int,
    groups: GroupLedger,
) -> Neighbours:
    """The k nearest stored vectors of each id, itself and its group left out.

    Exact for groups of any size: k + 64 neighbours are fetched first, and a row whose group fills all of
    them is searched again among the ids outside its group.

    Shapes: ids (Q,), vectors (Q, D) -> (Q, k); -1 and inf where fewer than k others exist.
    Ties:   lowest id first.
    Memory: Q x (k + 64) ids and distances.
    """
    n = len(index)
    if n == 0 or ids.size == 0:
        return _nothing(ids.size, k)
    widest = max(groups.size(number) for number in ids.tolist()) if groups else 1
    fetched = min(n, k + min(widest, _WIDEST))
    found = index.search(vectors, fetched)
    keep = (found.ids != ids[:, None]) & (found.ids >= 0)
    if groups:
        own = groups.codes(ids)
        keep &= (groups.codes(found.ids) != own[:, None]) | (own[:, None] < 0)
    nearest = first_kept(found, keep, k)
    if fetched == n:
        return nearest
    lacking = np.flatnonzero(keep.sum(axis=1) < k)
    if lacking.size:
        stored = index.ids()
        by_group: dict[int, list[int]] = {}
        for row, code in zip(lacking.tolist(), groups.codes(ids[lacking]).tolist(), strict=True):
            by_group.setdefault(code, []).append(row)
        for rows in by_group.values():
            outside = np.setdiff1d(stored, groups.members(int(ids[rows[0]])), assume_unique=True)
            if outside.size == 0:
                continue  # everything stored is one group: what was found before masking stays empty
            again = index.search(vectors[rows], k, allowed=outside)
            nearest.ids[rows], nearest.distances[rows] = again.ids, again.distances
    return nearest


def every_nearest_others(
    index: VectorIndex,
    k: int,
    groups: GroupLedger,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], Neighbours]:
    """All stored ids, ascending, with the k nearest others of each.

    Shapes: -> ids (N,), neighbours (N, k).
    Memory: N x k, and one search of 256 rows at a time.
    """
    ids = index.ids()
    nearest = _nothing(ids.size, k)
    for start in range(0, ids.size, _SEARCH_ROWS):
        rows = slice(start, start + _SEARCH_ROWS)
        part = nearest_others(index, ids[rows], index.vectors(ids[rows]), k, groups)
        nearest.ids[rows], nearest.distances[rows] = part.ids, part.distances
        if progress is not None:
            progress(min(start + _SEARCH_ROWS, ids.size), ids.size)
    return ids, nearest


class NearestRows:
    """The nearest targets of some rows, kept exact while targets come and go.

    `known[i]` of row i's entries are the true nearest; `complete[i]` says that they are all there is.
    """

    def __init__(self, targets: VectorIndex, groups: GroupLedger, depth: int = DEPTH) -> None:
        self._targets = targets
        self._groups = groups
        self.depth = depth
        self.ids = np.zeros(0, dtype=np.int64)
        self._vectors = np.zeros((0, targets.width), dtype=np.float32)
        self._sighted = np.zeros((0, targets.width), dtype=np.float32)
        self._squares = np.zeros(0)  # of the lengths of these
        self._nearest = _nothing(0, depth)
        self._known = np.zeros(0, dtype=np.int64)
        self._complete = np.zeros(0, dtype=np.bool_)

    def enter(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Follow more rows; their neighbours are searched when first asked for."""
        empty = _nothing(ids.size, self.depth)
        sighted = self._as_sighted(vectors)
        self.ids = np.concatenate([self.ids, ids])
        self._vectors = np.concatenate([self._vectors, vectors])
        self._sighted = np.concatenate([self._sighted, sighted])
        self._squares = np.concatenate([self._squares, _squares(sighted)])
        self._nearest = Neighbours(
            ids=np.concatenate([self._nearest.ids, empty.ids]),
            distances=np.concatenate([self._nearest.distances, empty.distances]),
        )
        self._known = np.concatenate([self._known, np.zeros(ids.size, dtype=np.int64)])
        self._complete = np.concatenate([self._complete, np.zeros(ids.size, dtype=np.bool_)])

    def export_arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs beside the rows' vectors; views of what may change at the next call."""
        return {
            "ids": self.ids,
            "nearest_ids": self._nearest.ids,
            "nearest_distances": self._nearest.distances,
            "known": self._known,
            "complete": self._complete,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], vectors: NDArray[np.float32]) -> None:
        """Take up exported rows, whose vectors (rows, D) are given, in place of those followed now."""
        self.ids, self._vectors, self._sighted = arrays["ids"].copy(), vectors, self._as_sighted(vectors)
        self._squares = _squares(self._sighted)
        self._nearest = Neighbours(arrays["nearest_ids"].copy(), arrays["nearest_distances"].copy())
        self._known, self._complete = arrays["known"].copy(), arrays["complete"].copy()

    def forget(self) -> None:
        """Search every row afresh when it is next asked for: the targets are searched in another way from now on."""
        self._known[:], self._complete[:] = 0, False

    def replace(self, places: NDArray[np.intp], ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Follow others in the places of as many rows: `leave` and `enter` would copy all that stay."""
        sighted = self._as_sighted(vectors)
        self.ids[places], self._vectors[places], self._sighted[places] = ids, vectors, sighted
        self._squares[places] = _squares(sighted)
        self._nearest.ids[places], self._nearest.distances[places] = -1, np.inf
        self._known[places], self._complete[places] = 0, False

    def leave(self, ids: NDArray[np.int64]) -> None:
        """Stop following rows; unknown ones are ignored."""
        stay = ~np.isin(self.ids, ids)
        self.ids, self._vectors, self._sighted = self.ids[stay], self._vectors[stay], self._sighted[stay]
        self._squares = self._squares[stay]
        self._nearest = Neighbours(ids=self._nearest.ids[stay], distances=self._nearest.distances[stay])
        self._known, self._complete = self._known[stay], self._complete[stay]

    def targets_added(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Merge targets that were just added, none of which may be a row that has been searched."""
        for start in range(0, ids.size, _MERGE_ROWS):
            part = slice(start, start + _MERGE_ROWS)
            rows = np.flatnonzero(self._complete | (self._known > 0))  # the others are still to be searched
            if not rows.size:
                return
            others = np.ones((rows.size, ids[part].size), dtype=np.bool_)
            if self._groups:
                own, theirs = self._groups.codes(self.ids[rows]), self._groups.codes(ids[part])
                others = (own[:, None] != theirs) | (own[:, None] < 0)
            # A list stays all there is only while every newcomer finds room in it, the distant ones too.
            complete = self._complete[rows] & (self._known[rows] + others.sum(axis=1) <= self.depth)
            near = others & self._in_reach(rows, vectors[part])
            touched = np.flatnonzero(near.any(axis=1))
            if touched.size:
                fresh = self._measured(rows[touched], near[touched], ids[part], vectors[part])
                self._merge(rows[touched], fresh)
            self._complete[rows] = complete

    def _as_sighted(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._targets.metric is not Metric.COSINE:
            return vectors
        lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        sighted: NDArray[np.float32] = np.divide(vectors, lengths, where=lengths > 0, out=np.zeros(vectors.shape))
        return sighted.astype(np.float32)

    def _in_reach(self, rows: NDArray[np.intp], vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which newcomers may enter the list of each row, (rows, newcomers): all of those that do, and few others.

        One matrix product; it leaves few pairs to measure. Its rounding is bounded, and the bound is doubled to cover
        that of the distances it is compared with.
        """
        newcomers = self._as_sighted(vectors)
        row_squares, new_squares = self._squares[rows], _squares(newcomers)
        if 2 * rows.size > self.ids.size:  # multiplying by them all is quicker than copying most of them
            products = (self._sighted @ newcomers.T)[rows]
        else:
            products = self._sighted[rows] @ newcomers.T
        squares = row_squares[:, None] + new_squares - 2.0 * products
        rounding = 2.0 * (self._targets.width + 16) * 2.0**-24
        slack = rounding * (np.sqrt(row_squares)[:, None] + np.sqrt(new_squares)) ** 2

        known = self._known[rows]
        edge = self._nearest.distances[rows, np.maximum(known - 1, 0)].astype(np.float64)
        reach = 2.0 * edge if self._targets.metric is Metric.COSINE else edge**2
        reach *= 1.0 + 1e-4
        reach[self._complete[rows] & (known < self.depth)] = np.inf
        # A vector of zeros has no angle: it is at distance 1 from everything, whatever the product says.
        if self._targets.metric is Metric.COSINE:
            blank = (row_squares == 0)[:, None] | (new_squares == 0)
            squares[blank], slack[blank] = 2.0, 1e-3
        inside: NDArray[np.bool_] = squares <= reach[:, None] + slack
        return inside

    def _measured(
        self, rows: NDArray[np.intp], near: NDArray[np.bool_], ids: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> Neighbours:
        """The nearest newcomers of each row among those marked in `near`; the same bits as a search gives.

        Shapes: rows (R,), near (R, B), ids (B,), vectors (B, D) -> (R, depth).
        """
        metric = self._targets.metric
        asked, newcomers = self._vectors[rows], vectors
        if metric is Metric.COSINE:
            asked, newcomers = unit_rows(asked), unit_rows(newcomers)
        row, column = np.nonzero(near)
        distances = np.empty(row.size, dtype=np.float32)
        for start in range(0, row.size, _PAIRS):
            some = slice(start, start + _PAIRS)
            distances[some] = pair_distances(metric, asked[row[some]], newcomers[column[some]])
        order = np.lexsort((ids[column], distances, row))
        row, column, distances = row[order], column[order], distances[order]
        place = np.arange(row.size) - np.searchsorted(row, row)  # how many of its row come before
        kept = place < self.depth
        fresh = _nothing(rows.size, self.depth)
        fresh.ids[row[kept], place[kept]] = ids[column[kept]]
        fresh.distances[row[kept], place[kept]] = distances[kept]
        return fresh

    def _merge(self, rows: NDArray[np.intp], fresh: Neighbours) -> None:
        old_ids, old_distances = self._nearest.ids[rows], self._nearest.distances[rows]
        known, complete = self._known[rows], self._complete[rows]
        # Beyond the last known neighbour of a row lie targets it has not seen, so newcomers count only up
        # to it.
        place = np.arange(rows.size), np.maximum(known - 1, 0)
        edge_distance, edge_id = old_distances[place][:, None], old_ids[place][:, None]
        before_edge = (fresh.distances < edge_distance) | ((fresh.distances == edge_distance) & (fresh.ids < edge_id))
        counted = (fresh.ids >= 0) & (complete[:, None] | (before_edge & (known[:, None] > 0)))
        ids = np.concatenate([old_ids, np.where(counted, fresh.ids, -1)], axis=1)
        distances = np.concatenate([old_distances, np.where(counted, fresh.distances, np.float32(np.inf))], axis=1)
        # By id among equals, but padding, whose id is -1, last.
        order = np.lexsort((np.where(ids < 0, np.iinfo(np.int64).max, ids), distances))[:, : self.depth]
        self._nearest.ids[rows] = np.take_along_axis(ids, order, axis=1)
        self._nearest.distances[rows] = np.take_along_axis(distances, order, axis=1)
        self._known[rows] = np.minimum(known + counted.sum(axis=1), self.depth)

    def targets_removed(self, ids: NDArray[np.int64]) -> None:
        """Strike removed targets from the lists; what is left of a list stays exact."""
        if self.ids.size == 0:
            return
        struck = np.isin(self._nearest.ids, ids) & (self._nearest.ids >= 0)
        touched = np.flatnonzero(struck.any(axis=1))
        if touched.size == 0:
            return
        part = Neighbours(ids=self._nearest.ids[touched], distances=self._nearest.distances[touched])
        shorter = first_kept(part, ~struck[touched] & (part.ids >= 0), self.depth)
        self._nearest.ids[touched], self._nearest.distances[touched] = shorter.ids, shorter.distances
        self._known[touched] -= struck[touched].sum(axis=1)

    def nearest(self, k: int) -> Neighbours:
        """The k nearest targets of every row, k at most the depth; short lists are searched again first."""
        if k > self.depth:
            raise ParameterInvalid(f"`k` of remembered neighbours must be at most {self.depth}; got {k}.")
        self.search_rows(np.flatnonzero((self._known < k) & ~self._complete))
        return Neighbours(ids=self._nearest.ids[:, :k].copy(), distances=self._nearest.distances[:, :k].copy())

    def search_rows(self, positions: NDArray[np.intp]) -> None:
        """Search the neighbours of the rows at these positions afresh."""
        for start in range(0, positions.size, _SEARCH_ROWS):
            rows = positions[start : start + _SEARCH_ROWS]
            # One more than is kept tells whether the list is complete.
            found = nearest_others(self._targets, self.ids[rows], self._vectors[rows], self.depth + 1, self._groups)
            self._nearest.ids[rows] = found.ids[:, : self.depth]
            self._nearest.distances[rows] = found.distances[:, : self.depth]
            exist = (found.ids >= 0).sum(axis=1)
            self._complete[rows] = exist <= self.depth
            self._known[rows] = np.minimum(exist, self.depth)

    def searched_nearest(self, k: int) -> Neighbours:
        """The k nearest targets of every row for any k, by searching; nothing is remembered."""
        nearest = _nothing(self.ids.size, k)
        for start in range(0, self.ids.size, _SEARCH_ROWS):
            rows = slice(start, start + _SEARCH_ROWS)
            part = nearest_others(self._targets, self.ids[rows], self._vectors[rows], k, self._groups)
            nearest.ids[rows], nearest.distances[rows] = part.ids, part.distances
        return nearest


class LeaveOneOutTable:
    """Calibration rows of a bank with their nearest others, equal at any time to computing them afresh.

    The table follows an index it does not own: call `add` after the index has the vectors and `remove`
    after it has lost them, both while nobody reads. Reading may finish postponed searches; a lock inside
    lets several readers do so at once.
    """

    def __init__(self, index: VectorIndex, *, rows: int = CALIBRATION_ROWS, depth: int = DEPTH) -> None:
        self._index = index
        self._limit = rows
        self.groups = GroupLedger()
        self._nearest = NearestRows(index, self.groups, depth)
        self._row_keys = np.zeros(0, dtype=np.uint64)  # of self._nearest.ids, in the same order
        self._ids = np.zeros(0, dtype=np.int64)  # of the whole bank, with room to grow
        self._keys = np.zeros(0, dtype=np.uint64)
        self._n = 0
        self._beyond_depth: dict[int, Neighbours] = {}
        self._reading = threading.Lock()

    def export_arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs beside the index and the groups; views of what may change at the next call."""
        rows = {f"rows.{name}": array for name, array in self._nearest.export_arrays().items()}
        return {"ids": self._ids[: self._n], "keys": self._keys[: self._n], "row_keys": self._row_keys, **rows}

    def restore(self, arrays: Mapping[str, NDArray[Any]], grouped: Mapping[int, str]) -> None:
        """Take up an exported table, over the same index; `grouped` names the group of each id that has one.

        Only for a table that follows nothing yet.
        """
        rows = {name.removeprefix("rows."): array for name, array in arrays.items() if name.startswith("rows.")}
        self.groups.add(grouped.keys(), grouped.values())
        self._ids, self._keys, self._n = arrays["ids"].copy(), arrays["keys"].copy(), len(arrays["ids"])
        self._row_keys = arrays["row_keys"].copy()
        self._nearest.restore(rows, self._index.vectors(rows["ids"]))

    def forget(self) -> None:
        """Search every neighbour afresh when it is next asked for: the index searches in another way from now on."""
        self._nearest.forget()
        self._beyond_depth.clear()

    def add(self, ids: NDArray[np.int64], keys: NDArray[np.uint64], groups: Sequence[str | None] | None = None) -> None:
        """Follow images the index has just been given.

        Cost: for a batch of B, B x 2,000 distances, and one search for each newcomer among the smallest
        keys (in a bank of N, about 2,000 B / N of them).
        """
        if ids.size == 0:
            return
        self._beyond_depth.clear()
        self.groups.add(ids.tolist(), [None] * ids.size if groups is None else groups)
        self._append(ids, keys)

        pool_ids = np.concatenate([self._nearest.ids, ids])
        pool_keys = np.concatenate([self._row_keys, keys])
        chosen = np.lexsort((pool_ids, pool_keys))[: self._limit]
        rows_before = self._nearest.ids.size
        is_evicted = np.ones(rows_before, dtype=np.bool_)
        is_evicted[chosen[chosen < rows_before]] = False
        evicted, entering = np.flatnonzero(is_evicted), chosen[chosen >= rows_before]
        replacing, further = entering[: evicted.size], entering[evicted.size :]  # as many as leave always enter
        if evicted.size:
            self._nearest.replace(evicted, pool_ids[replacing], self._index.vectors(pool_ids[replacing]))
            self._row_keys[evicted] = pool_keys[replacing]
        self._nearest.targets_added(ids, self._index.vectors(ids))
        self._enter(pool_ids[further], pool_keys[further])
        if ids.size <= _EAGER_ROWS:
            self._nearest.search_rows(np.concatenate([evicted, np.arange(rows_before, self._nearest.ids.size)]))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Stop following images the index has just lost; unknown ids are ignored."""
        gone = np.isin(self._ids[: self._n], ids)
        if not gone.any():
            return
        self._beyond_depth.clear()
        self.groups.remove(ids.tolist())
        left = ~gone
        n = int(left.sum())
        self._ids[:n], self._keys[:n] = self._ids[: self._n][left], self._keys[: self._n][left]
        self._n = n
        self._leave(ids)
        self._nearest.targets_removed(ids)
        if self._nearest.ids.size < min(n, self._limit):
            chosen = self._smallest_keys()
            entering = chosen[~np.isin(self._ids[chosen], self._nearest.ids)]
            self._enter(self._ids[entering], self._keys[entering])

    def __len__(self) -> int:
        return self._n

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which ids are in the bank.

        Shapes: (Q,) -> (Q,).
        """
        return np.isin(ids, self._ids[: self._n])

    def usable_k(self, k: int) -> int:
        """The number of neighbours a score may use: k, or as many as every left-out row still has.

        A query sees all n images, a left-out row only n minus its group. Were the query's mean taken over
        more neighbours than a row can have, adding the query to the bank could raise a row's score, and the
        proof that leave-one-out is valid would not hold. So both use min(k, n - largest group), and at
        least 1.
        """
        return max(1, min(k, self._n - self.groups.largest()))

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the calibration rows, by ascending key."""
        return self._nearest.ids[self._by_key()]

    def nearest(self, k: int) -> Neighbours:
        """The k nearest others of each calibration row, in the order of `ids`.

        Shapes: -> (rows, k); -1 and inf where fewer exist.
        """
        with self._reading:
            if k <= self._nearest.depth:
                found = self._nearest.nearest(k)
            else:
                if k not in self._beyond_depth:
                    self._beyond_depth[k] = self._nearest.searched_nearest(k)
                found = self._beyond_depth[k]
        order = self._by_key()
        return Neighbours(ids=found.ids[order], distances=found.distances[order])

    def all_keys(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Ids of the whole bank and their keys, by ascending key.

        Shapes: -> (N,), (N,).
        """
        ids, keys = self._ids[: self._n], self._keys[: self._n]
        order = np.lexsort((ids, keys))
        return ids[order], keys[order]

    def _by_key(self) -> NDArray[np.intp]:
        return np.lexsort((self._nearest.ids, self._row_keys))

    def _append(self, ids: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        needed = self._n + ids.size
        if needed > self._ids.size:
            room = max(needed, 2 * self._ids.size)
            self._ids = np.concatenate([self._ids[: self._n], np.zeros(room - self._n, dtype=np.int64)])
            self._keys = np.concatenate([self._keys[: self._n], np.zeros(room - self._n, dtype=np.uint64)])
        self._ids[self._n : needed], self._keys[self._n : needed] = ids, keys
        self._n = needed

    def _smallest_keys(self) -> NDArray[np.intp]:
        ids, keys = self._ids[: self._n], self._keys[: self._n]
        count = min(self._limit, self._n)
        if count == 0:
            return np.zeros(0, dtype=np.intp)
        border = np.partition(keys, count - 1)[count - 1]
        candidates = np.flatnonzero(keys <= border)
        return candidates[np.lexsort((ids[candidates], keys[candidates]))[:count]]

    def _enter(self, ids: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        if ids.size:
            self._nearest.enter(ids, self._index.vectors(ids))
            self._row_keys = np.concatenate([self._row_keys, keys])

    def _leave(self, ids: NDArray[np.int64]) -> None:
        if ids.size:
            stay = ~np.isin(self._nearest.ids, ids)
            self._nearest.leave(ids)
            self._row_keys = self._row_keys[stay]


def _squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = (vectors.astype(np.float64) ** 2).sum(axis=1)
    return squares


def _nothing(rows: int, k: int) -> Neighbours:
    return Neighbours(
        ids=np.full((rows, k), -1, dtype=np.int64), distances=np.full((rows, k), np.inf, dtype=np.float32)
    )


def first_kept(found: Neighbours, keep: NDArray[np.bool_], k: int) -> Neighbours:
    """The first k kept entries of each row, in their order, padded to k."""
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, order, axis=1)
    nearest = _nothing(found.ids.shape[0], k)
    columns = order.shape[1]
    nearest.ids[:, :columns] = np.where(kept, np.take_along_axis(found.ids, order, axis=1), -1)
    nearest.distances[:, :columns] = np.where(
        kept, np.take_along_axis(found.distances, order, axis=1), np.float32(np.inf)
    )
    return nearest
