"""Rows under ids: the part that every index shares."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.contract import Metric
from index.distances import as_count, as_ids, as_rows, unit_rows
from index.errors import CountMismatch, IdInvalid, IdTaken, IdUnknown

GROWTH = 1.5


class Column:
    """An array that grows and shrinks at its end in amortised constant time per row."""

    def __init__(self, empty: NDArray[Any]) -> None:
        self._buffer = empty
        self._length = len(empty)

    @property
    def values(self) -> NDArray[Any]:
        """What is stored; a view, valid until the next change."""
        return self._buffer[: self._length]

    @property
    def capacity(self) -> int:
        return len(self._buffer)

    @property
    def reserved_bytes(self) -> int:
        return self._buffer.nbytes

    def reserve(self, extra: int) -> None:
        needed = self._length + extra
        if needed > self.capacity:
            # Fresh pages cost no memory until they are written, so a generous step is cheap.
            self._move(max(needed, int(self.capacity * GROWTH)))

    def append(self, values: NDArray[Any]) -> None:
        self.reserve(len(values))
        self._buffer[self._length : self._length + len(values)] = values
        self._length += len(values)

    def cut(self, length: int) -> None:
        """Keep the first `length` values; give memory back once less than half is used."""
        self._length = length
        if length * 2 < self.capacity:
            self._move(length)

    def _move(self, capacity: int) -> None:
        buffer = np.empty((capacity, *self._buffer.shape[1:]), dtype=self._buffer.dtype)
        buffer[: self._length] = self.values
        self._buffer = buffer


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
        """Bytes reserved for rows and ids."""
        return sum(column.reserved_bytes for column in self._columns())

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
            self._given = Column(self._searched.values.copy())
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
                column.values[holes] = column.values[kept_last]
                column.cut(left)
        if not left:
            self._given = None
        self._replaced(holes, left)
        return len(gone)

    def _replaced(self, places: NDArray[np.int64], length: int) -> None:
        """Called after a removal: these places hold other rows than before, and those from `length` on none."""

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
        places = self._places_of(as_ids(allowed, what="allowed"))
        return np.unique(places[places >= 0])

    def _query_rows(self, queries: ArrayLike) -> NDArray[np.float32]:
        """The queries in the form in which rows are searched."""
        rows = as_rows(queries, self.width, what="queries")
        return unit_rows(rows) if self.metric is Metric.COSINE else rows
