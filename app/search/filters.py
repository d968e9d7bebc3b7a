"""Filters on metadata: `must`, `should`, `must_not` over equality, range and membership.

    {"must": [{"key": "line", "match": 3}, {"key": "taken", "range": {"gte": "2026-01-01"}}],
     "must_not": [{"key": "$role", "in": ["anomalous"]}]}

A key names a metadata field; dots go into objects (`camera.id`); a field that holds a list matches when any of its
values does. `$id`, `$role`, `$label` and `$group` name the image's own facts. A plain object without these words is a
list of equalities: `{"line": 3}`.

A filter looks at one image (`accepts`), or finds all that fit among those of a collection (`fitting`): by indexes of
the keys it names where images are many, one by one where they are few. Both give the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.entries import EntryTable, Segment
from app.entry_columns import ImageEntry, image_key
from app.errors import Invalid
from app.key_index import ABSENT, KeyIndex, rows_in, values_at

DEPTH_MAX = 8
CONDITIONS_MAX = 256
VALUES_MAX = 100_000  # of one `in`
NESTED_MAX = 64  # lists and objects among them, each of which is compared with each image's
CLAUSES = ("must", "should", "must_not")
FACTS = ("$id", "$role", "$label", "$group")
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}

Facts = Mapping[str, Any]


class _Test(Protocol):
    def fits(self, value: Any) -> bool: ...

    def rows(self, index: KeyIndex) -> BitMap:
        """Rows with a value that fits, of the values that the index has."""

    def unsure(self, index: KeyIndex) -> BitMap:
        """Rows with a value that may fit and that the index does not have."""


@dataclass(frozen=True, slots=True)
class _OneOf:
    wanted: Sequence[Any]
    _plain: frozenset[tuple[bool, Any]] = field(init=False)  # JSON's true is not 1
    _nested: Sequence[Any] = field(init=False)  # lists and objects

    def __post_init__(self) -> None:
        nested = [one for one in self.wanted if isinstance(one, list | dict)]
        plain = frozenset((isinstance(one, bool), one) for one in self.wanted if not isinstance(one, list | dict))
        object.__setattr__(self, "_plain", plain)
        object.__setattr__(self, "_nested", nested)

    def fits(self, value: Any) -> bool:
        if isinstance(value, list | dict):
            return any(value == one for one in self._nested)
        return (isinstance(value, bool), value) in self._plain

    def rows(self, index: KeyIndex) -> BitMap:
        return BitMap.union(BitMap(), *(index.equal(one) for one in self.wanted if not isinstance(one, list | dict)))

    def unsure(self, index: KeyIndex) -> BitMap:
        rows = BitMap()
        if self._nested:
            rows |= index.objects
        if any(_is_number(one) for one in self.wanted):
            rows |= index.large
        return rows


@dataclass(frozen=True, slots=True)
class _Range:
    bounds: Sequence[tuple[str, Any]]

    def fits(self, value: Any) -> bool:
        return all(_comparable(value, bound) and BOUNDS[name](value, bound) for name, bound in self.bounds)

    def rows(self, index: KeyIndex) -> BitMap:
        return index.within(self.bounds)

    def unsure(self, index: KeyIndex) -> BitMap:
        return index.large if _is_number(self.bounds[0][1]) else BitMap()


class _Node(Protocol):
    def accepts(self, facts: Facts, metadata: Facts) -> bool: ...

    def rows(self, look: "_Look") -> BitMap: ...

    def keys(self) -> set[str]:
        """Keys whose index it looks at."""


@dataclass(frozen=True, slots=True)
class _Condition:
    key: str
    test: _Test

    def accepts(self, facts: Facts, metadata: Facts) -> bool:
        value = facts[self.key[1:]] if self.key.startswith("$") else values_at(self.key, metadata)
        if isinstance(value, list):
            return any(self.test.fits(one) for one in value)
        return value is not ABSENT and self.test.fits(value)

    def rows(self, look: "_Look") -> BitMap:
        if self.key == "$id" and isinstance(self.test, _OneOf):
            return look.named(self.test.wanted)
        index = look.index(self.key)
        rows, unsure = self.test.rows(index), self.test.unsure(index)
        if unsure:
            rows = rows | BitMap(row for row in unsure if _accepts(self, look.entry(row)))
        return rows

    def keys(self) -> set[str]:
        return set() if self.key == "$id" and isinstance(self.test, _OneOf) else {self.key}


@dataclass(frozen=True, slots=True)
class _Clauses:
    must: Sequence[_Node]
    should: Sequence[_Node] = ()
    must_not: Sequence[_Node] = ()

    def accepts(self, facts: Facts, metadata: Facts) -> bool:
        return (
            all(one.accepts(facts, metadata) for one in self.must)
            and (not self.should or any(one.accepts(facts, metadata) for one in self.should))
            and not any(one.accepts(facts, metadata) for one in self.must_not)
        )

    def rows(self, look: "_Look") -> BitMap:
        rows = look.everything
        for one in self.must:
            rows = rows & one.rows(look)
        if self.should:
            rows = rows & BitMap.union(BitMap(), *(one.rows(look) for one in self.should))
        for one in self.must_not:
            rows = rows - one.rows(look)
        return rows

    def keys(self) -> set[str]:
        return set().union(*(one.keys() for one in (*self.must, *self.should, *self.must_not)))


class _Look:
    """One segment as conditions look at it."""

    def __init__(self, entries: EntryTable, segment: Segment, keys: set[str]) -> None:
        self._columns = segment.columns
        self._indexes, _ = entries.index_of(segment, keys)
        self.everything = segment.alive()

    def index(self, key: str) -> KeyIndex:
        return self._indexes[key]

    def entry(self, row: int) -> ImageEntry:
        return self._columns.entry(row)

    def named(self, ids: Sequence[Any]) -> BitMap:
        texts = [one for one in ids if isinstance(one, str)]
        rows = [self._columns.row_of(one, image_key(one)) for one in texts]
        return BitMap(row for row in rows if row is not None)


@dataclass(frozen=True)
class Filter:
    """A parsed filter."""

    root: _Node
    is_empty: bool = False

    def accepts(self, facts: Facts, metadata: Facts) -> bool:
        """Whether an image fits."""
        return self.root.accepts(facts, metadata)

    @cached_property
    def keys(self) -> set[str]:
        """Keys whose indexes `fitting` needs: `EntryTable.prepare` makes them ahead."""
        return self.root.keys()

    def fitting(self, entries: EntryTable) -> NDArray[np.int64]:
        """The images that fit, ascending. Hold the lock of the collection for reading."""
        found = [np.array([one.pk for one in entries.recent if _accepts(self.root, one)], np.int64)]
        for segment in entries.segments:
            rows = self.root.rows(_Look(entries, segment, self.keys))
            found.append(segment.columns.pks[rows_in(rows)])
        return np.sort(np.concatenate(found))


def parse_filter(given: Any) -> Filter:
    """The filter that a JSON value describes; None or {} accepts every image. Raises Invalid with a sentence."""
    if given is None or given == {}:
        return Filter(_Clauses(()), is_empty=True)
    budget = [CONDITIONS_MAX]
    root = _clauses(given, 0, budget)
    return Filter(root, is_empty=budget[0] == CONDITIONS_MAX)


def _clauses(given: Any, depth: int, budget: list[int]) -> _Clauses:
    if depth > DEPTH_MAX:
        raise Invalid(f"`filter` must be nested at most {DEPTH_MAX} deep.", "filter_invalid")
    if not isinstance(given, dict):
        raise Invalid("`filter` must be an object with `must`, `should`, `must_not`.", "filter_invalid")
    if not set(given) & set(CLAUSES):
        return _Clauses([_condition({"key": key, "match": value}, depth, budget) for key, value in given.items()])
    unknown = set(given) - set(CLAUSES)
    if unknown:
        raise Invalid(
            f"`filter` must hold only `must`, `should`, `must_not`; got `{min(unknown)}` beside them.", "filter_invalid"
        )
    parts: dict[str, list[_Node]] = {}
    for clause in CLAUSES:
        conditions = given.get(clause) or []
        conditions = [conditions] if isinstance(conditions, dict) else conditions
        if not isinstance(conditions, list):
            raise Invalid(f"`filter.{clause}` must be a list of conditions.", "filter_invalid")
        parts[clause] = [_condition(one, depth, budget) for one in conditions]
    return _Clauses(**parts)


def _condition(given: Any, depth: int, budget: list[int]) -> _Node:
    budget[0] -= 1
    if budget[0] < 0:
        raise Invalid(f"`filter` must hold at most {CONDITIONS_MAX} conditions.", "filter_invalid")
    if not isinstance(given, dict):
        raise Invalid(
            'A condition of `filter` must be an object such as {"key": "line", "match": 3}.', "filter_invalid"
        )
    if "key" not in given:
        return _clauses(given, depth + 1, budget)
    key = given["key"]
    kinds = set(given) - {"key"}
    if not isinstance(key, str) or len(kinds) != 1:
        raise Invalid("A condition of `filter` must hold `key` and one of `match`, `in`, `range`.", "filter_invalid")
    if key.startswith("$") and key not in FACTS:
        raise Invalid(f"`{key}` must be one of {', '.join(FACTS)}.", "filter_invalid")
    kind = kinds.pop()
    return _Condition(key, _test(kind, given[kind]))


def _test(kind: str, wanted: Any) -> _Test:
    if kind == "match" and isinstance(wanted, dict):
        if set(wanted) == {"value"}:
            return _test("match", wanted["value"])
        if set(wanted) == {"any"}:
            return _test("in", wanted["any"])
    if kind == "match" and (wanted is None or isinstance(wanted, str | int | float | bool)):
        return _OneOf([wanted])
    if kind == "in" and isinstance(wanted, list):
        nested = sum(isinstance(one, list | dict) for one in wanted)
        if len(wanted) > VALUES_MAX or nested > NESTED_MAX:
            raise Invalid(
                f"`in` of `filter` must hold at most {VALUES_MAX} values, {NESTED_MAX} lists and objects among them.",
                "filter_invalid",
            )
        return _OneOf(wanted)
    if kind == "range" and isinstance(wanted, dict) and wanted and set(wanted) <= set(BOUNDS):
        bounds = list(wanted.items())
        if all(isinstance(bound, str) or _is_number(bound) for _, bound in bounds):
            return _Range(bounds)
    raise Invalid(
        "A condition of `filter` must be `match` with a value, `in` with a list, or `range` with some of gt, gte, lt, "
        f"lte (numbers or texts); got `{kind}`.",
        "filter_invalid",
    )


def _accepts(node: _Node, entry: ImageEntry) -> bool:
    facts = {"id": entry.image_id, "role": entry.role, "label": entry.label, "group": entry.group}
    return node.accepts(facts, entry.metadata)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(value: Any, bound: Any) -> bool:
    return (_is_number(value) and _is_number(bound)) or (isinstance(value, str) and isinstance(bound, str))
