"""Rows under ids: the part that every index shares."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.columns import Column
from index.contract import Metric
from index.distances import as_count, as_ids, as_rows, unit_rows
from index.errors import CountMismatch, IdInvalid, IdTaken, IdUnknown, SnapshotDamaged
from index.snapshot import StoredArray

log = logging.getLogger("oddity.index")


class RowStore:
    """Rows under ids, without a search: the indexes inherit all but `search` of their contract from here.

    Memory: N * D * 4 bytes and 24 bytes a row, at most doubled by growth; for cosine twice that once a row is
            added that is not at unit length, because the row as given is kept beside the searched one.

    Adding ascending ids costs the new rows alone; ids in between also move 16 bytes a row. Removing moves the
    last rows into the holes, so it costs the removed rows and 16 bytes a row.
    """

    def __init__(self, *, width: int, metric: Metric) -> None:
        self.metric = Metric(metric)
        self.width = as_count(width, what="width")
        self._searched = Column(np.empty((0, self.width), dtype=np.float32))
        self._given: Column | None = None  # None while it would equal _searched
        self._ids = Column(np.empty(0, dtype=np.int64))  # id at each place
        self._ascending = Column(np.empty(0, dtype=np.int64))  # the same ids in order ...
        self._places = Column(np.empty(0, dtype=np.int64))  # ... and the place of each

    def __len__(self) -> int:
        return len(self._ids.values)

    @property
    def memory_bytes(self) -> int:
        """Bytes of anonymous memory reserved for rows and ids."""
        return sum(column.reserved_bytes for column in self._columns())

    @property
    def mapped_bytes(self) -> int:
        """Bytes of scratch files reserved for rows and ids: page cache, which the system may take back."""
        return sum(column.mapped_bytes for column in self._columns())

    @property
    def rows_by_place(self) -> NDArray[np.float32]:
        """The rows as they are searched; a view, valid until the next change."""
        return self._searched.values

    @property
    def ids_by_place(self) -> NDArray[np.int64]:
        """The id of the row at each place; a view, valid until the next change."""
        return self._ids.values

    def reserve(self, extra: int) -> None:
        """Claim room for so many more rows. See `VectorIndex.reserve`."""
        for column in self._columns():
            column.reserve(extra)

    def ids(self) -> NDArray[np.int64]:
        """All ids, ascending; a copy."""
        return self._ascending.values.copy()

    def vectors(self, ids: ArrayLike) -> NDArray[np.float32]:
        """The rows of these ids as they were added, in the order asked for; a copy.

        Raises:
            IdUnknown: an id is not there.
        """
        wanted = as_ids(ids)
        places = self._places_of(wanted)
        if (places < 0).any():
            unknown = int(wanted[np.argmin(places)])
            raise IdUnknown(f"`ids` must be in the index; got {unknown}, which is not.")
        given = self._searched if self._given is None else self._given
        rows: NDArray[np.float32] = given.values[places]
        return rows

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Store one row per id; either all or, on an error, none. See `VectorIndex.add`."""
        new = as_ids(ids)
        given = as_rows(vectors, self.width, what="vectors")
        if len(new) != len(given):
            raise CountMismatch(f"`ids` must name each of {len(given)} vectors once; got {len(new)} ids.")
        if not len(new):
            return
        order = np.argsort(new, kind="stable")
        ascending = new[order]
        if ascending[0] < 0:
            raise IdInvalid(f"`ids` must be 0 or more; got {int(ascending[0])}.")
        taken = self._places_of(ascending) >= 0
        taken[1:] |= ascending[1:] == ascending[:-1]
        if taken.any():
            raise IdTaken(f"`ids` must be new; got {int(ascending[np.argmax(taken)])}, which is taken.")
        searched = unit_rows(given) if self.metric is Metric.COSINE else given
        if searched is not given and self._given is None:
            self._given = Column(np.empty((0, self.width), dtype=np.float32))
            self._given.append(self._searched.values)
        # All memory is claimed before the first change, so running out of it changes nothing.
        for column in self._columns():
            column.reserve(len(new))
        first = len(self)
        self._insert_ascending(ascending, first + order)
        self._searched.append(searched)
        if self._given is not None:
            self._given.append(given)
        self._ids.append(new)

    def remove(self, ids: ArrayLike) -> int:
        """How many of the ids were there; none of them is afterwards."""
        wanted = np.unique(as_ids(ids))
        places = self._places_of(wanted)
        gone = places[places >= 0]
        if not len(gone):
            return 0
        left = len(self) - len(gone)
        kept_last = np.setdiff1d(np.arange(left, len(self)), gone, assume_unique=True)
        holes = np.sort(gone[gone < left])
        known = np.searchsorted(self._ascending.values, wanted[places >= 0])
        moved = np.searchsorted(self._ascending.values, self._ids.values[kept_last])
        self._places.values[moved] = holes
        for column in (self._ascending, self._places):
            column.values[:left] = np.delete(column.values, known)
            column.cut(left)
        for column in self._columns():
            if column not in (self._ascending, self._places):
                column.move(kept_last, holes)
                column.cut(left)
        if not left:
            self._given = None
        self._removed(gone, kept_last, holes)
        return len(gone)

    def export_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays by name, views where possible, and facts: what `restore` makes the same index from.

        The views are valid until the next change, so the caller keeps writers away until they are written.
        """
        arrays: dict[str, NDArray[Any]] = {"ids": self._ids.values, "rows": self._searched.values}
        if self._given is not None:
            arrays["given"] = self._given.values
        return arrays, {"width": self.width, "metric": self.metric.value, "rows": len(self)}

    def restore(self, arrays: Mapping[str, StoredArray], facts: Mapping[str, Any]) -> None:
        """Fills this index, which must be empty, with what was exported; on an error it stays empty.

        Memory: rows that belong in a file stay in the one they come from, whose pages they copy as they are changed;
                others are checked and copied in one pass.

        Raises:
            SnapshotDamaged: what the arrays hold is not what was written, or not of this width and metric.
            IdTaken: the index is not empty.
        """
        if len(self):
            raise IdTaken(f"An index must be empty to be restored; got {len(self)} rows.")
        kind = {"width": self.width, "metric": self.metric.value}
        told = {name: facts.get(name) for name in kind}
        if told != kind:
            raise SnapshotDamaged(f"The rows must be of {kind} to be restored; got {told}.")
        with ExitStack() as undo:
            undo.callback(self._empty)
            self._fill(arrays, facts["rows"])
            undo.pop_all()

    def _empty(self) -> None:
        self._given = None
        for column in self._columns():
            column.cut(0)

    def _fill(self, arrays: Mapping[str, StoredArray], n_rows: int) -> None:
        shape = (n_rows, self.width)
        ids = _expected(arrays, "ids", (n_rows,), np.int64).read()
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
        if n_rows and (ascending[0] < 0 or (ascending[1:] == ascending[:-1]).any()):
            raise SnapshotDamaged("The ids must be 0 or more and each there once; they are not.")
        columns = [("rows", self._searched)]
        if "given" in arrays:
            self._given = Column(np.empty((0, self.width), dtype=np.float32))
            columns.append(("given", self._given))
        # Side by side: hashing and copying leave Python's lock to the other column.
        with ThreadPoolExecutor(len(columns)) as pool:
            filling = [
                pool.submit(_fill_column, column, name, _expected(arrays, name, shape, np.float32))
                for name, column in columns
            ]
        for one in filling:
            one.result()
        self._ids.append(ids)
        self._ascending.append(ascending)
        self._places.append(order)

    def _removed(self, gone: NDArray[np.int64], moved: NDArray[np.int64], holes: NDArray[np.int64]) -> None:
        """Called after a removal: the rows at `gone` went, then those at `moved` to `holes`, one for one."""

    def _columns(self) -> list[Column]:
        columns = [self._searched, self._ids, self._ascending, self._places]
        return columns if self._given is None else [*columns, self._given]

    def _insert_ascending(self, ids: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        before = self._ascending.values
        if not len(before) or ids[0] > before[-1]:
            self._ascending.append(ids)
            self._places.append(places)
            return
        at = np.searchsorted(before, ids)
        merged_ids, merged_places = np.insert(before, at, ids), np.insert(self._places.values, at, places)
        self._ascending.append(ids)
        self._places.append(places)
        self._ascending.values[:] = merged_ids
        self._places.values[:] = merged_places

    def _places_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of each id, -1 where it is not there."""
        known = self._ascending.values
        if not len(known):
            return np.full(len(ids), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, self._places.values[at], -1)

    def _allowed_places(self, allowed: ArrayLike | None) -> NDArray[np.int64] | None:
        """Places of the allowed ids, each once and ascending; None where everything is allowed."""
        if allowed is None:
            return None
        wanted = as_ids(allowed, what="allowed")
        places = self._places_of(wanted)
        places = places[places >= 0]
        if (places[1:] > places[:-1]).all():
            return places  # as from ascending ids that were added in this order: most often
        return np.sort(places) if (wanted[1:] > wanted[:-1]).all() else np.unique(places)

    def _query_rows(self, queries: ArrayLike) -> NDArray[np.float32]:
        """The queries in the form in which rows are searched."""
        rows = as_rows(queries, self.width, what="queries")
        return unit_rows(rows) if self.metric is Metric.COSINE else rows


def _fill_column(column: Column, name: str, stored: StoredArray) -> None:
    blocks = _finite(name, stored.blocks())
    if not column.is_large(len(stored)):
        column.extend_from(len(stored), blocks)
        return
    for _ in blocks:
        pass
    try:
        column.borrow(stored.private(), len(stored))
    except OSError as error:  # a system that promises no more memory than it has
        log.warning("`%s` cannot be mapped and is copied: %s", name, error)
        column.extend_from(len(stored), stored.blocks())


def _expected(
    arrays: Mapping[str, StoredArray], name: str, shape: tuple[int, ...], dtype: type[np.generic]
) -> StoredArray:
    if name not in arrays:
        raise SnapshotDamaged(f"The arrays of an index must hold `{name}`; they do not.")
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        raise SnapshotDamaged(
            f"`{name}` must be {np.dtype(dtype)} of shape {shape}; got {array.dtype} of {array.shape}."
        )
    return array


def _finite(name: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        # No sum of rows that an index takes overflows; one that is not a number shows in it.
        if not np.isfinite(np.add.reduce(np.frombuffer(block, np.float32))):
            raise SnapshotDamaged(f"`{name}` must be finite to be restored; got NaN or infinity.")
        yield block
