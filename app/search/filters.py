"""Filters on metadata: `must`, `should`, `must_not` over equality, range and membership.

    {"must": [{"key": "line", "match": 3}, {"key": "taken", "range": {"gte": "2026-01-01"}}],
     "must_not": [{"key": "$role", "in": ["anomalous"]}]}

A key names a metadata field; dots go into objects (`camera.id`); a field that holds a list matches when any of its
values does. `$id`, `$role`, `$label` and `$group` name the image's own facts. A plain object without these words is a
list of equalities: `{"line": 3}`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Invalid

DEPTH_MAX = 8
CONDITIONS_MAX = 256
CLAUSES = ("must", "should", "must_not")
FACTS = ("$id", "$role", "$label", "$group")
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}

Facts = Mapping[str, Any]
Check = Callable[[Facts, Facts], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; `accepts` says whether an image fits."""

    accepts: Check
    is_empty: bool = False


def parse_filter(given: Any) -> Filter:
    """The filter that a JSON value describes; None or {} accepts every image. Raises Invalid with a sentence."""
    if given is None or given == {}:
        return Filter(lambda _facts, _metadata: True, is_empty=True)
    budget = [CONDITIONS_MAX]
    accepts = _clauses(given, 0, budget)
    return Filter(accepts, is_empty=budget[0] == CONDITIONS_MAX)


def _clauses(given: Any, depth: int, budget: list[int]) -> Check:
    if depth > DEPTH_MAX:
        raise Invalid(f"`filter` must be nested at most {DEPTH_MAX} deep.", "filter_invalid")
    if not isinstance(given, dict):
        raise Invalid("`filter` must be an object with `must`, `should`, `must_not`.", "filter_invalid")
    if not set(given) & set(CLAUSES):
        return _every([_condition({"key": key, "match": value}, depth, budget) for key, value in given.items()])
    unknown = set(given) - set(CLAUSES)
    if unknown:
        raise Invalid(
            f"`filter` must hold only `must`, `should`, `must_not`; got `{min(unknown)}` beside them.", "filter_invalid"
        )
    parts: dict[str, list[Check]] = {}
    for clause in CLAUSES:
        conditions = given.get(clause) or []
        conditions = [conditions] if isinstance(conditions, dict) else conditions
        if not isinstance(conditions, list):
            raise Invalid(f"`filter.{clause}` must be a list of conditions.", "filter_invalid")
        parts[clause] = [_condition(one, depth, budget) for one in conditions]
    must, should, must_not = (parts[clause] for clause in CLAUSES)

    def check(facts: Facts, metadata: Facts) -> bool:
        return (
            all(one(facts, metadata) for one in must)
            and (not should or any(one(facts, metadata) for one in should))
            and not any(one(facts, metadata) for one in must_not)
        )

    return check


def _every(checks: list[Check]) -> Check:
    return lambda facts, metadata: all(one(facts, metadata) for one in checks)


def _condition(given: Any, depth: int, budget: list[int]) -> Check:
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
    test = _test(kind, given[kind])

    def check(facts: Facts, metadata: Facts) -> bool:
        values = _values(key, facts, metadata)
        return any(test(value) for value in values)

    return check


def _test(kind: str, wanted: Any) -> Callable[[Any], bool]:
    if kind == "match" and isinstance(wanted, dict):
        if set(wanted) == {"value"}:
            return _test("match", wanted["value"])
        if set(wanted) == {"any"}:
            return _test("in", wanted["any"])
    if kind == "match" and (wanted is None or isinstance(wanted, str | int | float | bool)):
        return lambda value: _equal(value, wanted)
    if kind == "in" and isinstance(wanted, list):
        return lambda value: any(_equal(value, one) for one in wanted)
    if kind == "range" and isinstance(wanted, dict) and wanted and set(wanted) <= set(BOUNDS):
        bounds = [(BOUNDS[name], bound) for name, bound in wanted.items()]
        if all(isinstance(bound, str) or _is_number(bound) for _, bound in bounds):
            return lambda value: all(_comparable(value, bound) and compare(value, bound) for compare, bound in bounds)
    raise Invalid(
        "A condition of `filter` must be `match` with a value, `in` with a list, or `range` with some of gt, gte, lt, "
        f"lte (numbers or texts); got `{kind}`.",
        "filter_invalid",
    )


def _values(key: str, facts: Facts, metadata: Facts) -> list[Any]:
    if key.startswith("$"):
        return [facts[key[1:]]]
    value: Any = metadata
    if key in metadata:
        value = metadata[key]
    else:
        for step in key.split("."):
            if not isinstance(value, Mapping) or step not in value:
                return []
            value = value[step]
    return value if isinstance(value, list) else [value]


def _equal(value: Any, wanted: Any) -> bool:
    # JSON's true is not 1.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(value: Any, bound: Any) -> bool:
    return (_is_number(value) and _is_number(bound)) or (isinstance(value, str) and isinstance(bound, str))
