"""The values that one key has among many images, arranged so that equality and ranges give sets of rows at once."""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.entry_columns import NONE, ROLES, CodedStrings, EntryColumns
from app.packed_strings import PackedStrings

BITMAP_ROWS = 64  # rows a value has on average from which on each value has a bitmap of its own
INDEX_BYTES = 3000  # of an index of a key that no image has
BITMAP_BYTES = 100  # of a bitmap beside its containers
INT64 = np.iinfo(np.int64)
ABSENT = object()

Rows = NDArray[np.uint32]
Number = int | float


@dataclass(frozen=True, slots=True)
class SortedValues:
    """Values in ascending order, each once, and the rows that have each: as bitmaps, or one after the other.

    Shapes: values (u,); starts (u + 1,), the rows of value i lie between starts i and i + 1 of rows (r,).
    """

    values: NDArray[Any] | PackedStrings
    starts: NDArray[np.int64]
    rows: Rows
    bitmaps: list[BitMap] | None

    @classmethod
    def of(cls, values: NDArray[Any] | PackedStrings, places: NDArray[np.intp], rows: Rows) -> "SortedValues":
        """Of sorted values: `rows` have the values at `places`, side by side."""
        ordered = rows[np.argsort(places, kind="stable")]
        starts = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.bincount(places, minlength=len(values)), out=starts[1:])
        if ordered.size < BITMAP_ROWS * len(values):
            return cls(values, starts, ordered, None)
        bitmaps = [bitmap_of(ordered[start:end]) for start, end in pairwise(starts)]
        return cls(values, starts, ordered[:0], bitmaps)

    @classmethod
    def of_numbers(cls, numbers: NDArray[Any], rows: Rows) -> "SortedValues":
        """Of numbers side by side with their rows."""
        values, places = np.unique(numbers, return_inverse=True)
        return cls.of(values, places, rows)

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays and bitmaps."""
        values = self.values
        parts = [values.blob, values.offsets] if isinstance(values, PackedStrings) else [values]
        arrays = sum(int(one.nbytes) for one in (*parts, self.starts, self.rows))
        return arrays + sum(map(bitmap_bytes, self.bitmaps or ()))

    def between(self, first: int, last: int) -> BitMap:
        """Rows of the values from place `first` up to and without `last`."""
        if first >= last:
            return BitMap()
        if self.bitmaps is not None:
            return BitMap.union(*self.bitmaps[first:last])
        return bitmap_of(np.sort(self.rows[self.starts[first] : self.starts[last]]))

    def below(self, bound: Any, *, inclusive: bool) -> int:
        """How many values are less than a bound of their kind, or equal to it."""
        if isinstance(self.values, PackedStrings):
            return self.values.place_right(bound) if inclusive else self.values.place_left(bound)
        count = _integers_below if self.values.dtype == np.int64 else _floats_below
        return count(self.values, bound, inclusive)


def _integers_below(values: NDArray[np.int64], bound: Number, inclusive: bool) -> int:
    if bound > INT64.max:
        return values.size
    if bound < INT64.min:
        return 0
    edge = math.floor(bound) if inclusive else math.ceil(bound)
    if edge > INT64.max:
        return values.size
    return int(np.searchsorted(values, np.int64(edge), "right" if inclusive else "left"))


def _floats_below(values: NDArray[np.float64], bound: Number, inclusive: bool) -> int:
    try:
        nearest = float(bound)
    except OverflowError:  # an integer beyond every float: only infinity is greater
        nearest = math.inf if bound > 0 else -math.inf
    if nearest != bound:  # an integer between two floats: no value equals it, and the nearest lies on one side of it
        inclusive = nearest < bound
    return int(np.searchsorted(values, nearest, "right" if inclusive else "left"))


def _nothing() -> SortedValues:
    return SortedValues(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.uint32), None)


@dataclass(frozen=True)
class KeyIndex:
    """Which rows have which value of one key; a row whose value is a list has each of its values.

    Numbers, texts, truths and nulls are kept apart, as filters do. What fits none of these is not kept: `objects` has
    the rows with an object or a list within the list, `large` those with an integer beyond 64 bits.
    """

    integers: SortedValues = field(default_factory=_nothing)
    floats: SortedValues = field(default_factory=_nothing)
    texts: SortedValues = field(default_factory=_nothing)
    singles: Mapping[bool | None, BitMap] = field(default_factory=dict)
    objects: BitMap = field(default_factory=BitMap)
    large: BitMap = field(default_factory=BitMap)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes of everything in it."""
        ordered = (self.integers, self.floats, self.texts)
        return (
            INDEX_BYTES
            + sum(one.memory_bytes for one in ordered)
            + sum(map(bitmap_bytes, (*self.singles.values(), self.objects, self.large)))
        )

    def equal(self, wanted: Any) -> BitMap:
        """Rows with this value: a text, a number, a truth or null."""
        if wanted is None or isinstance(wanted, bool):
            return self.singles.get(wanted, BitMap())
        return self.within([("gte", wanted), ("lte", wanted)])

    def within(self, bounds: Sequence[tuple[str, Any]]) -> BitMap:
        """Rows with a value within bounds that are all numbers, or all texts."""
        if all(isinstance(bound, str) for _, bound in bounds):
            return _within(self.texts, bounds)
        if any(isinstance(bound, str) or bound != bound for _, bound in bounds):
            return BitMap()  # nothing is both number and text; nothing compares with what is not a number
        return _within(self.integers, bounds) | _within(self.floats, bounds)


def _within(ordered: SortedValues, bounds: Iterable[tuple[str, Any]]) -> BitMap:
    first, last = 0, len(ordered.values)
    for name, bound in bounds if last else ():
        if name in ("gt", "gte"):
            first = max(first, ordered.below(bound, inclusive=name == "gt"))
        else:
            last = min(last, ordered.below(bound, inclusive=name == "lte"))
    return ordered.between(first, last)


def key_indexes(columns: EntryColumns, keys: Iterable[str]) -> dict[str, KeyIndex]:
    """The index of each key over these images; all metadata is decoded once, whatever the number of keys.

    Keys that begin with `$` are the images' own facts. Memory: while it is made, about 40 bytes a value, and the
    distinct texts.
    """
    wanted = set(keys)
    gathered = {key: _Gathered(key) for key in wanted if not key.startswith("$")}
    if gathered:
        for start, documents in columns.documents():
            for one in gathered.values():
                one.add(start, documents)
    made = {key: one.index() for key, one in gathered.items()}
    for key in wanted - set(made):
        made[key] = _index_of_fact(columns, key)
    return made


def values_at(key: str, document: Mapping[str, Any]) -> Any:
    """What a document has under a key, or under the path that its dots spell; `ABSENT` when there is nothing."""
    if key in document:
        return document[key]
    value: Any = document
    for step in key.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return ABSENT
        value = value[step]
    return value


def bitmap_of(ascending: NDArray[Any]) -> BitMap:
    """A bitmap of rows in ascending order."""
    return BitMap(array("I", ascending.astype(np.uint32, copy=False).tobytes()))  # much faster than from numpy's own


def rows_in(bitmap: BitMap) -> Rows:
    """The rows of a bitmap, ascending."""
    return np.frombuffer(bitmap.to_array(), np.uint32)


def bitmap_bytes(bitmap: BitMap) -> int:
    """What a bitmap takes."""
    found = bitmap.get_statistics()
    containers = (
        found["n_bytes_array_containers"] + found["n_bytes_run_containers"] + found["n_bytes_bitset_containers"]
    )
    return BITMAP_BYTES + containers


class _Gathered:
    """Values of one key by kind, with their rows, as the documents go by."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._numbers: dict[type, list[tuple[NDArray[Any], Rows]]] = {int: [], float: []}
        self._place_of: dict[str, int] = {}
        self._texts: list[tuple[NDArray[np.int32], Rows]] = []
        self._rows: dict[Any, list[int]] = {None: [], True: [], False: [], dict: [], "large": []}

    def add(self, start: int, documents: Sequence[Mapping[str, Any]]) -> None:
        """Take in the documents of the rows from `start` on."""
        found: dict[type, tuple[list[int], list[Any]]] = {
            kind: ([], []) for kind in (int, float, str, bool, type(None), list, dict, object)
        }
        key = self._key
        for row, document in enumerate(documents, start):
            value = values_at(key, document)
            rows, values = found[type(value)]
            rows.append(row)
            values.append(value)
        for row, several in zip(*found[list], strict=True):
            for value in several:
                rows, values = found[dict if isinstance(value, list) else type(value)]
                rows.append(row)
                values.append(value)
        self._rows[dict].extend(found[dict][0])
        self._rows[None].extend(found[type(None)][0])
        for row, value in zip(*found[bool], strict=True):
            self._rows[value].append(row)
        rows, values = found[str]
        places = (self._place_of.setdefault(value, len(self._place_of)) for value in values)
        self._texts.append((np.fromiter(places, np.int32, len(rows)), np.array(rows, np.uint32)))
        self._add_numbers(int, *found[int])
        self._add_numbers(float, *found[float])

    def _add_numbers(self, kind: type, rows: list[int], values: list[Any]) -> None:
        if kind is int and values and not INT64.min <= min(values) <= max(values) <= INT64.max:
            fits = [INT64.min <= value <= INT64.max for value in values]
            self._rows["large"].extend(row for row, is_fit in zip(rows, fits, strict=True) if not is_fit)
            rows = [row for row, is_fit in zip(rows, fits, strict=True) if is_fit]
            values = [value for value, is_fit in zip(values, fits, strict=True) if is_fit]
        numbers = np.array(values, np.int64 if kind is int else np.float64)
        kept = ~np.isnan(numbers)  # nothing equals it, nothing is less or greater
        self._numbers[kind].append((numbers[kept], np.array(rows, np.uint32)[kept]))

    def index(self) -> KeyIndex:
        """The index of all that was taken in."""
        values = sorted(self._place_of)
        ranks = np.empty(len(values), np.intp)
        ranks[[self._place_of[value] for value in values]] = np.arange(len(values))
        places, rows = _end_to_end(self._texts)
        return KeyIndex(
            integers=SortedValues.of_numbers(*_end_to_end(self._numbers[int])),
            floats=SortedValues.of_numbers(*_end_to_end(self._numbers[float])),
            texts=SortedValues.of(PackedStrings.of(values), ranks[places], rows),
            singles={single: BitMap(self._rows[single]) for single in (None, True, False)},
            objects=BitMap(self._rows[dict]),
            large=BitMap(self._rows["large"]),
        )


def _end_to_end(parts: Sequence[tuple[NDArray[Any], Rows]]) -> tuple[NDArray[Any], Rows]:
    return np.concatenate([values for values, _ in parts]), np.concatenate([rows for _, rows in parts])


def _index_of_fact(columns: EntryColumns, key: str) -> KeyIndex:
    if key == "$id":
        coded = CodedStrings.of(columns.image_ids.texts())
    elif key == "$role":
        ranks = np.argsort(np.argsort(ROLES)).astype(np.int32)
        coded = CodedStrings(ranks[columns.roles], PackedStrings.of(sorted(ROLES)))
    else:
        coded = {"$label": columns.labels, "$group": columns.groups}[key]
    has = coded.codes != NONE
    return KeyIndex(
        texts=SortedValues.of(coded.values, coded.codes[has].astype(np.intp), _rows_where(has)),
        singles={None: bitmap_of(_rows_where(~has))},
    )


def _rows_where(which: NDArray[np.bool_]) -> Rows:
    return np.flatnonzero(which).astype(np.uint32)
