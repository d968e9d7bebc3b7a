"""The facts of a collection's images in memory, as columns: about a quarter of what as many Python objects take.

Most images lie in segments: sorted columns that never change, possibly mapped from a file. The latest few lie in an
overlay of Python objects. An image that changes or goes is marked as gone in its segment. A full overlay becomes a
segment, and segments of similar size become one, so that there are few of them and an image is moved a bounded number
of times however many come after it.
"""

import itertools
import math
import mmap
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.entry_columns import NONE, ROLES, EntryColumns, ImageEntry, image_key
from app.key_index import KeyIndex, bitmap_of, key_indexes

GROWTH = 4  # a segment has at least so many times the images of the next
INDEX_BYTES_MIN = 16 * 2**20  # of indexes of metadata that are always kept; more where the facts take more
OVERLAY_SLOTS_BYTES = 300  # of a row of the overlay beside its strings: the entry, and its places in two dictionaries

Pks = Sequence[int] | NDArray[np.int64]


class Segment:
    """Columns in ascending order of pk, which of their rows are gone, and indexes of keys that filters asked for."""

    def __init__(self, columns: EntryColumns) -> None:
        self.columns = columns
        self.gone = np.zeros(len(columns), np.bool_)
        self.living = len(columns)
        self.indexes: dict[str, KeyIndex] = {}
        self._alive: BitMap | None = None

    def rows_of(self, pks: NDArray[np.int64]) -> NDArray[np.intp]:
        """The living row of each of these, -1 for none."""
        rows = np.minimum(np.searchsorted(self.columns.pks, pks), len(self.columns) - 1)
        rows[(self.columns.pks[rows] != pks) | self.gone[rows]] = -1
        return rows

    def remove(self, rows: NDArray[np.intp]) -> None:
        """Mark living rows as gone."""
        self.gone[rows] = True
        self.living -= rows.size
        self._alive = None

    def alive(self) -> BitMap:
        """The living rows. Never change it."""
        if self._alive is None:
            self._alive = bitmap_of(np.flatnonzero(~self.gone))
        return self._alive


@dataclass(frozen=True, slots=True)
class Settled:
    """Segments of a table, and fewer that hold the same."""

    before: tuple[Segment, ...]
    after: tuple[Segment, ...]


class EntryTable(Mapping[int, ImageEntry]):
    """Images by pk, ascending; entries are made when asked for.

    Changes only while nobody looks: under the write lock of the collection. Any number of threads may look.
    """

    overlay_rows: ClassVar[int] = 1024  # most images kept as Python objects
    merged_rows: ClassVar[int] = 65_536  # most images that a change makes one segment of; more wait for `settled`

    def __init__(self, columns: EntryColumns | None = None) -> None:
        self._segments: tuple[Segment, ...] = () if columns is None or not len(columns) else (Segment(columns),)
        self._overlay: dict[int, ImageEntry] = {}
        self._overlay_pk_of: dict[str, int] = {}
        self._overlay_bytes = 0
        self._indexing = threading.Lock()  # readers make indexes
        self._asked: dict[str, int] = {}  # keys that are indexed, and when they were asked for last
        self._clock = itertools.count()

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> "EntryTable":
        """The table that `export_arrays` was asked of; the arrays are kept as they are, mapped ones stay mapped.

        Raises:
            ValueError: an array is missing or does not fit the others.
        """
        return cls(EntryColumns.from_arrays(arrays))

    def export_arrays(self) -> dict[str, NDArray[Any]]:
        """The whole table as plain arrays. Memory: a copy of the table, unless nothing changed since it was whole."""
        return self._joined(self._segments, self._overlay).arrays()

    def put(self, columns: EntryColumns) -> None:
        """Add images, or give known ones new facts. Their pks must be distinct, and so must the ids of all images."""
        if not columns.is_ascending:
            columns = columns.take(np.argsort(columns.pks))
            if not columns.is_ascending:
                raise ValueError("`columns` of an entry table must name each pk once.")
        self.remove(columns.pks)
        if len(self._overlay) + len(columns) <= self.overlay_rows:
            for row in range(len(columns)):
                entry = columns.entry(row)
                self._overlay[entry.pk] = entry
                self._overlay_pk_of[entry.image_id] = entry.pk
                self._overlay_bytes += _object_bytes(entry)
            return
        overlay, self._overlay, self._overlay_pk_of, self._overlay_bytes = self._overlay, {}, {}, 0
        added = Segment(columns)
        self._settle((*self._segments, Segment(self._joined((added,), overlay))))

    def remove(self, pks: Pks) -> None:
        """Forget images; unknown ones are ignored."""
        wanted = np.asarray(pks, np.int64)
        for segment in self._segments:
            rows = segment.rows_of(wanted)
            segment.remove(np.unique(rows[rows >= 0]))
        if self._overlay:
            for pk in wanted.tolist():
                if (entry := self._overlay.pop(pk, None)) is not None:
                    del self._overlay_pk_of[entry.image_id]
                    self._overlay_bytes -= _object_bytes(entry)
        if any(2 * one.living < len(one.columns) for one in self._segments):
            self._settle(self._segments)

    def settled(self) -> Settled | None:
        """Large segments made one, for `adopt`; None where there is nothing to make one.

        Anybody may look meanwhile; whoever may change the table must not until it is adopted.
        """
        before = self._segments
        after = self._arranged(before, math.inf)
        made = [one for one in after if one not in before]
        if not made:
            return None
        keys = {key for one in before if one not in after for key in list(one.indexes)}
        for one in made:
            one.indexes.update(key_indexes(one.columns, keys))
        return Settled(before, after)

    def adopt(self, settled: Settled | None) -> None:
        """A change that takes no time: the same images in fewer segments."""
        if settled is not None and self._segments is settled.before:
            self._segments = settled.after

    def find(self, image_id: str) -> int | None:
        """The pk of the image with this id, None when there is none."""
        if (pk := self._overlay_pk_of.get(image_id)) is not None:
            return pk
        key = image_key(image_id)
        for segment in self._segments:
            row = segment.columns.row_of(image_id, key)
            if row is not None and not segment.gone[row]:
                return int(segment.columns.pks[row])
        return None

    def __getitem__(self, pk: int) -> ImageEntry:
        if (entry := self._overlay.get(pk)) is not None:
            return entry
        for segment in self._segments:
            row = int(np.searchsorted(segment.columns.pks, pk))
            if row < len(segment.columns) and segment.columns.pks[row] == pk and not segment.gone[row]:
                return segment.columns.entry(row)
        raise KeyError(pk)

    def __contains__(self, pk: object) -> bool:
        return bool(self.known([int(pk)])[0]) if isinstance(pk, int | np.integer) else False

    def __len__(self) -> int:
        return sum(segment.living for segment in self._segments) + len(self._overlay)

    def __iter__(self) -> Iterator[int]:
        return iter(self.pks().tolist())

    def pks(self) -> NDArray[np.int64]:
        """Every image, ascending."""
        parts = [segment.columns.pks[~segment.gone] for segment in self._segments]
        return np.sort(np.concatenate([*parts, np.fromiter(self._overlay, np.int64, len(self._overlay))]))

    def pks_of_role(self, role: str) -> NDArray[np.int64]:
        """Every image of a role, ascending."""
        code = ROLES.index(role)
        parts = [one.columns.pks[(one.columns.roles == code) & ~one.gone] for one in self._segments]
        late = [pk for pk, entry in self._overlay.items() if entry.role == role]
        return np.sort(np.concatenate([*parts, np.array(late, np.int64)]))

    def counts(self) -> dict[str, int]:
        """How many images of each role."""
        found = np.zeros(len(ROLES), np.int64)
        for segment in self._segments:
            found += np.bincount(segment.columns.roles[~segment.gone], minlength=len(ROLES))
        for entry in self._overlay.values():
            found[ROLES.index(entry.role)] += 1
        return dict(zip(ROLES, found.tolist(), strict=True))

    def known(self, pks: Pks) -> NDArray[np.bool_]:
        """Which of these are images of the table."""
        wanted = np.asarray(pks, np.int64)
        known = np.zeros(wanted.size, np.bool_)
        for segment in self._segments:
            known |= segment.rows_of(wanted) >= 0
        if self._overlay:
            rest = np.flatnonzero(~known)
            known[rest] = [pk in self._overlay for pk in wanted[rest].tolist()]
        return known

    def roles_of(self, pks: Pks) -> NDArray[np.uint8]:
        """The role of each, as its place in `ROLES`. This and what follows raise KeyError for an unknown image."""
        found = np.empty(len(pks), np.uint8)
        self._gather(pks, found, lambda at, rows: at.roles[rows], lambda entry: ROLES.index(entry.role))
        return found

    def hashes_of(self, pks: Pks) -> NDArray[np.uint8]:
        """The sha256 of each image's bytes. Shapes: (n,) -> (n, 32)."""
        found = np.empty((len(pks), 32), np.uint8)
        self._gather(
            pks,
            found,
            lambda at, rows: at.hashes[rows],
            lambda entry: np.frombuffer(bytes.fromhex(entry.sha256), np.uint8),
        )
        return found

    def marks_of(self, pks: Pks) -> NDArray[np.uint64]:
        """64 bits of each image's bytes: an image sent again with other bytes keeps its key but not its mark."""
        starts = np.ascontiguousarray(self.hashes_of(pks)[:, :8])
        return starts.view(">u8")[:, 0].astype(np.uint64)

    def keys_of(self, pks: Pks) -> NDArray[np.uint64]:
        """`image_key` of each image's id."""
        found = np.empty(len(pks), np.uint64)
        self._gather(pks, found, lambda at, rows: at.keys[rows], lambda entry: image_key(entry.image_id))
        return found

    def image_ids_of(self, pks: Pks) -> list[str]:
        """The id of each."""
        found = np.empty(len(pks), object)
        self._gather(pks, found, lambda at, rows: at.image_ids.take(rows).texts(), lambda entry: entry.image_id)
        return list(found)

    def labels_of(self, pks: Pks) -> list[str | None]:
        """The label of each, None for none."""
        found = np.empty(len(pks), object)
        self._gather(pks, found, lambda at, rows: at.labels.at(rows), lambda entry: entry.label)
        return list(found)

    def groups_of(self, pks: Pks) -> list[str | None]:
        """The group of each, None for none."""
        found = np.empty(len(pks), object)
        self._gather(pks, found, lambda at, rows: at.groups.at(rows), lambda entry: entry.group)
        return list(found)

    def grouped(self, role: str) -> dict[int, str]:
        """The group of each image of a role that has one."""
        code = ROLES.index(role)
        found: dict[int, str] = {}
        for one in self._segments:
            rows = np.flatnonzero((one.columns.roles == code) & (one.columns.groups.codes != NONE) & ~one.gone)
            names = one.columns.groups.at(rows)
            found.update((pk, name) for pk, name in zip(one.columns.pks[rows].tolist(), names, strict=True) if name)
        found.update((pk, one.group) for pk, one in self._overlay.items() if one.role == role and one.group)
        return found

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What filters look at by way of indexes."""
        return self._segments

    @property
    def recent(self) -> Collection[ImageEntry]:
        """Images of no segment, at most `overlay_rows`: filters look at each."""
        return self._overlay.values()

    def prepare(self, keys: Collection[str]) -> bool:
        """Index these keys where they are not yet; whether that made anything. No lock is needed.

        The first use of a key decodes all metadata once: some seconds a million images. Filters that hold the lock
        do it themselves where it was not done before.
        """
        made = [self.index_of(segment, keys)[1] for segment in self._segments]
        return any(made)

    def index_of(self, segment: Segment, keys: Collection[str]) -> tuple[dict[str, KeyIndex], bool]:
        """The index of each key over one of the segments, and whether one had to be made."""
        for key in keys:
            self._asked[key] = next(self._clock)
        found = {key: index for key in keys if (index := segment.indexes.get(key)) is not None}
        if len(found) == len(set(keys)):
            return found, False
        with self._indexing:
            missing = set(keys) - set(segment.indexes)
            segment.indexes.update(key_indexes(segment.columns, missing))
            found = {key: segment.indexes[key] for key in keys}
            self._asked.update(dict.fromkeys(keys, next(self._clock)))
            self._drop_indexes(keep=keys)
        return found, True

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays, those mapped from a file left out, of the overlay's objects, and of indexes."""
        arrays = sum(
            one.nbytes
            for segment in self._segments
            for one in (segment.gone, *segment.columns.arrays().values())
            if not is_mapped(one)
        )
        return arrays + self._overlay_bytes + self._index_bytes()

    def _index_bytes(self) -> int:
        return sum(index.memory_bytes for segment in self._segments for index in list(segment.indexes.values()))

    def _drop_indexes(self, keep: Collection[str]) -> None:
        """Drop indexes, the longest not asked for first, until the rest are no larger than what they are made from."""
        facts = sum(one.nbytes for segment in self._segments for one in segment.columns.arrays().values())
        room = max(INDEX_BYTES_MIN, facts) - self._index_bytes()
        for key in sorted(set(self._asked) - set(keep), key=self._asked.__getitem__):
            holders = [segment for segment in self._segments if key in segment.indexes]
            if room < 0 or not holders:
                del self._asked[key]
                room += sum(segment.indexes.pop(key).memory_bytes for segment in holders)

    def _gather(
        self,
        pks: Pks,
        found: NDArray[Any],
        of_rows: Callable[[EntryColumns, NDArray[np.intp]], Any],
        of_entry: Callable[[ImageEntry], Any],
    ) -> None:
        wanted = np.asarray(pks, np.int64)
        rest = np.ones(wanted.size, np.bool_)
        for segment in self._segments:
            rows = segment.rows_of(wanted)
            here = rows >= 0
            if here.any():
                found[here] = of_rows(segment.columns, rows[here])
                rest &= ~here
        for place in np.flatnonzero(rest).tolist():
            found[place] = of_entry(self._overlay[int(wanted[place])])

    def _settle(self, segments: Sequence[Segment]) -> None:
        """Keep these segments, and make one of those that are small: it takes a moment of those who want to look."""
        self._segments = self._arranged(segments, self.merged_rows)

    def _arranged(self, segments: Sequence[Segment], most: float) -> tuple[Segment, ...]:
        """The last segments become one while it is not small beside the one before; never more than `most` images."""
        kept = [one for one in segments if one.living]
        first, total = len(kept), 0
        while first and (first == len(kept) or kept[first - 1].living < GROWTH * total):
            first -= 1
            total += kept[first].living
        tail = kept[first:]
        if len(tail) > 1 and total <= most:
            kept[first:] = [Segment(self._joined(tail, {}))]
        return tuple(
            Segment(self._joined([one], {})) if 2 * one.living < len(one.columns) and one.living <= most else one
            for one in kept
        )

    @staticmethod
    def _joined(segments: Sequence[Segment], overlay: Mapping[int, ImageEntry]) -> EntryColumns:
        """What is left of segments and an overlay, in ascending order of pk."""
        parts = [segment.columns for segment in segments]
        gone = [segment.gone for segment in segments]
        if overlay or not parts:
            entries = overlay.values()
            parts.append(
                EntryColumns.of(
                    list(overlay),
                    [entry.image_id for entry in entries],
                    [entry.sha256 for entry in entries],
                    [entry.role for entry in entries],
                    [entry.label for entry in entries],
                    [entry.group for entry in entries],
                    [entry.metadata_json for entry in entries],
                )
            )
            gone.append(np.zeros(len(overlay), np.bool_))
        whole = EntryColumns.joined(parts)
        rows = np.flatnonzero(~np.concatenate(gone))
        if rows.size == len(whole) and whole.is_ascending:
            return whole
        return whole.take(rows[np.argsort(whole.pks[rows])])


def _object_bytes(entry: ImageEntry) -> int:
    return OVERLAY_SLOTS_BYTES + sum(map(sys.getsizeof, (entry.image_id, entry.sha256, entry.metadata_json)))


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether the bytes of an array are those of a mapped file: the system may drop and read them again."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
