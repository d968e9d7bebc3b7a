"""Filters answered from indexes give what looking at each image gives, whatever the images have been through."""

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.entries import EntryTable
from app.entry_columns import ROLES, EntryColumns
from app.key_index import SortedValues, key_indexes
from app.search import filters
from app.search.filters import Filter, parse_filter
from tests.conftest import png

KEYS = ("a", "b", "a.b", "a.b.c", "", "$id", "$role", "$label", "$group")
NAMES = ("", "a", "b", "ü", "\U0001f600")
NUMBERS = (
    *(0, 1, -1, 3, 0.5, 3.0, -0.0, 1e300, float("inf"), float("-inf"), float("nan")),
    *(2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 + 1, float(2**64), 10**400),
)
SINGLES = st.sampled_from([None, True, False, *NUMBERS, *NAMES, "\ud800", "3"])
VALUES = st.recursive(
    SINGLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), VALUES, max_size=3)
BOUNDS = st.dictionaries(
    st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from([*NUMBERS, *NAMES]), min_size=1, max_size=2
)
TESTS = st.one_of(
    SINGLES.map(lambda value: {"match": value}),
    st.lists(VALUES | st.sampled_from([*ROLES, "i3", "i8"]), max_size=3).map(lambda values: {"in": values}),
    BOUNDS.map(lambda bounds: {"range": bounds}),
)
CONDITIONS = st.builds(lambda key, test: {"key": key, **test}, st.sampled_from(KEYS), TESTS)
CLAUSES = st.recursive(
    CONDITIONS,
    lambda inner: st.dictionaries(
        st.sampled_from(["must", "should", "must_not"]), st.lists(inner, max_size=3), min_size=1
    ),
    max_leaves=6,
)
FILTERS = CLAUSES.map(lambda given: {"must": [given]})
FACTS = st.tuples(st.sampled_from(ROLES), st.sampled_from([None, *NAMES]), st.sampled_from([None, *NAMES]))
IMAGES = st.dictionaries(st.integers(0, 20), st.tuples(DOCUMENTS, FACTS), max_size=12)
CHANGES = st.lists(st.lists(st.integers(0, 20), max_size=6) | IMAGES, max_size=5)


def columns(images: dict[int, tuple[dict, tuple]]) -> EntryColumns:
    facts = [one for _, one in images.values()]
    texts = [json.dumps(document) for document, _ in images.values()]
    return EntryColumns.of(
        list(images), [f"i{pk}" for pk in images], ["ab" * 32] * len(images), *zip(*facts, strict=True), texts
    )


def one_by_one(chosen: Filter, table: EntryTable) -> list[int]:
    """The oracle: each image looked at by itself."""
    return [
        pk
        for pk, one in table.items()
        if chosen.accepts({"id": one.image_id, "role": one.role, "label": one.label, "group": one.group}, one.metadata)
    ]


def check(table: EntryTable, given: dict) -> None:
    chosen = parse_filter(given)
    found = chosen.fitting(table)
    assert found.dtype == np.int64
    assert found.tolist() == one_by_one(chosen, table), given


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 6), CHANGES, st.lists(FILTERS, min_size=1, max_size=4))
def test_indexes_and_single_images_agree_through_every_change(rows: int, changes: list, asked: list[dict]) -> None:
    table = EntryTable()
    table.overlay_rows = rows  # type: ignore[misc]
    for change in changes:
        if isinstance(change, list):
            table.remove(change)
        elif change:
            table.put(columns(change))
        for one in asked:
            check(table, one)
    restored = EntryTable.restore(table.export_arrays())
    for one in asked:
        check(restored, one)


PLAIN = (("normal", None, None), ("anomalous", "l", "g"))
EDGES = [
    *[{"a": value} for value in (3, 3.0, 2**53, 2**53 + 1, 2**70, "x", True, None, {"b": 1}, [[1], 2])],
    {},
]


@pytest.fixture
def edges() -> EntryTable:
    """A segment of documents with one value of every kind."""
    return EntryTable(columns({pk: (document, PLAIN[pk % 2]) for pk, document in enumerate(EDGES)}))


def edge_filters() -> Iterator[dict]:
    for value in (3, 2**53 + 1, 2**70, "x", True, None, 1):
        yield {"a": value}
    for values in ([[1]], [{"b": 1}], [], ["x", 3, None]):
        yield {"must": [{"key": "a", "in": values}]}
    for name in ("gt", "gte", "lt", "lte"):
        for bound in (3, 2**53, 2**53 + 1, 10**400, "x", float("nan")):
            yield {"must": [{"key": "a", "range": {name: bound}}]}
    yield {"must": [{"key": "a", "range": {"gt": 1, "lt": "x"}}]}
    yield {"must_not": [{"key": "$label", "match": "l"}]}
    yield {"must": [{"key": "$id", "in": ["i1", "i99", 3]}]}
    yield {"must": [{"key": "$id", "match": "\ud800"}]}  # no id can be half a surrogate pair
    yield {"must": [{"key": "$id", "range": {"gte": "i7"}}]}


def test_the_edges_of_every_kind(edges: EntryTable) -> None:
    for one in edge_filters():
        check(edges, one)
    assert parse_filter({"a": 2**53 + 1}).fitting(edges).tolist() == [3]
    assert parse_filter({"must": [{"key": "a", "range": {"gt": 2**53}}]}).fitting(edges).tolist() == [3, 4]


def test_the_comparison_can_fail(edges: EntryTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of the indexes taken away or bent is noticed."""

    def is_noticed() -> bool:
        try:
            for one in edge_filters():
                check(EntryTable(columns({pk: (document, PLAIN[pk % 2]) for pk, document in enumerate(EDGES)})), one)
        except AssertionError:
            return True
        return False

    assert not is_noticed()
    below = SortedValues.below
    for bent in (
        lambda self, bound, *, inclusive: below(self, bound, inclusive=not inclusive),
        lambda self, bound, *, inclusive: below(
            self, float(min(bound, 2**60)) if not isinstance(bound, str) else bound, inclusive=inclusive
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(SortedValues, "below", bent)
            assert is_noticed()
    for kind in (filters._OneOf, filters._Range):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "unsure", lambda *_: filters.BitMap())
            assert is_noticed()
    with monkeypatch.context() as patch:
        patch.setattr(filters._Look, "named", lambda *_: filters.BitMap())
        assert is_noticed()


def test_few_and_many_different_values_are_kept_in_their_own_way() -> None:
    documents = [{"kind": f"k{pk % 3}", "number": pk, "share": pk / 7, "name": f"n{pk}"} for pk in range(2000)]
    table = EntryTable(columns({pk: (document, PLAIN[0]) for pk, document in enumerate(documents)}))
    indexes = key_indexes(table.segments[0].columns, ["kind", "number", "share", "name", "$role"])
    assert indexes["kind"].texts.bitmaps is not None and indexes["$role"].texts.bitmaps is not None
    assert indexes["number"].integers.bitmaps is None and indexes["name"].texts.bitmaps is None
    assert indexes["kind"].memory_bytes < 2 * 2000 + 5000 and indexes["name"].memory_bytes > 2000 * 16
    for one in (
        {"kind": "k1"},
        {"must": [{"key": "kind", "range": {"gte": "k1"}}, {"key": "number", "range": {"lt": 900, "gt": 90}}]},
        {"must_not": [{"key": "share", "range": {"lte": 100}}]},
        {"must": [{"key": "name", "in": [f"n{number}" for number in range(0, 3000, 7)]}]},
    ):
        check(table, one)
        assert parse_filter(one).fitting(table).size


def test_metadata_is_decoded_once_for_all_keys_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table = EntryTable(columns({pk: ({"a": pk, "b": 1}, PLAIN[0]) for pk in range(50)}))
    chosen = parse_filter({"a": 3, "b": 1, "$role": "normal"})
    decoded = []
    documents = EntryColumns.documents
    monkeypatch.setattr(EntryColumns, "documents", lambda self: decoded.append(len(self)) or documents(self))
    assert table.prepare(chosen.keys) is True
    assert table.prepare(chosen.keys) is False
    assert chosen.fitting(table).tolist() == [3] and decoded == [50]
    table.put(columns({3: ({"a": 4, "b": 1}, PLAIN[0]), 60: ({"a": 3, "b": 1}, PLAIN[0])}))
    assert chosen.fitting(table).tolist() == [60], "the latest images are looked at themselves"
    assert decoded == [50]
    table.remove([60])
    assert chosen.fitting(table).tolist() == [] and decoded == [50]


def test_indexes_are_counted_and_the_longest_unused_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = {pk: ({f"k{key}": f"{key} {pk}" for key in range(16)}, PLAIN[0]) for pk in range(1500)}
    table = EntryTable(columns(documents))
    without = table.memory_bytes
    facts = sum(one.nbytes for one in table.segments[0].columns.arrays().values())
    monkeypatch.setattr("app.entries.INDEX_BYTES_MIN", 0)
    table.prepare({"k0"})
    one_key = table.memory_bytes - without
    assert one_key == pytest.approx(1500 * (4 + 16 + 8), rel=0.3)
    for key in range(16):
        table.prepare({f"k{key}"})
        table.prepare({"k0"})
        assert table.memory_bytes - without <= facts
    kept = set(table.segments[0].indexes)
    assert "k0" in kept and "k15" in kept and "k1" not in kept and len(kept) > 5
    assert set(table._asked) == kept
    check(table, {"k0": "0 7", "k1": "1 7"})


def test_keys_that_no_image_has_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.entries.INDEX_BYTES_MIN", 50_000)
    table = EntryTable(columns({pk: ({"a": pk}, PLAIN[0]) for pk in range(20)}))
    for key in range(300):
        check(table, {f"nobody has {key}": 1})
    assert len(table.segments[0].indexes) < 50 and set(table._asked) == set(table.segments[0].indexes)


def test_many_threads_ask_while_indexes_are_made() -> None:
    table = EntryTable(columns({pk: ({"a": pk % 5, "b": pk % 3}, PLAIN[0]) for pk in range(3000)}))
    wrong: list[object] = []

    def ask(number: int) -> None:
        chosen = parse_filter({"a": number % 5, "b": number % 3})
        if chosen.fitting(table).tolist() != [pk for pk in range(3000) if (pk - number) % 15 == 0]:
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- through HTTP ---

COUNT = 80


@pytest.fixture(scope="module")
def indexed(shared: TestClient) -> Iterator[TestClient]:
    """Images of which all but a few are indexed. Tests that use it must not write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EntryTable, "overlay_rows", 8)
        shared.put("/v1/collections/indexed", json={"metric": "l2"}).raise_for_status()
        for start in range(0, COUNT, 25):
            numbers = range(start, min(start + 25, COUNT))
            items = [
                {
                    "id": f"n{number}",
                    "metadata": {"number": number, "tag": f"t{number % 10}"},
                    "role": "example" if number % 50 == 7 else "normal",
                }
                for number in numbers
            ]
            answer = shared.post(
                "/v1/collections/indexed/images",
                files=[("files", (f"{number}.png", png(number, side=16))) for number in numbers],
                data={"items": json.dumps(items)},
            )
            assert answer.json()["created"] == len(numbers), answer.text
        yield shared


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({"number": 66}, lambda number: number == 66),
        ({"must": [{"key": "$role", "match": "example"}]}, lambda number: number % 50 == 7),
        ({"must": [{"key": "number", "range": {"gte": 72}}]}, lambda number: number >= 72),
        ({"tag": "t4"}, lambda number: number % 10 == 4),
        ({"must": [{"key": "tag", "in": [f"t{digit}" for digit in range(5)]}]}, lambda number: number % 10 < 5),
        ({"must_not": [{"key": "number", "range": {"lt": 2}}]}, lambda number: number >= 2),
        ({"must": [{"key": "tag", "match": "t4"}, {"key": "number", "match": 5}]}, lambda _: False),
    ],
)
def test_as_many_come_as_are_asked_for_at_every_share(indexed: TestClient, given: dict, fits: object) -> None:
    state = indexed.app.state.core.shelf.get("indexed")
    assert state.entries.segments and state.entries.recent, "both kinds of images are looked at"
    fitting = {f"n{number}" for number in range(COUNT) if fits(number)}
    for k in (1, max(1, len(fitting)), 1000):
        answer = indexed.post("/v1/collections/indexed/query", json={"id": "n0", "k": k, "filter": given})
        names = [one["id"] for one in answer.json()["results"][0]]
        assert len(names) == len(set(names)) == min(k, len(fitting - {"n0"}))
        assert set(names) <= fitting
    everything = indexed.post("/v1/collections/indexed/query", json={"id": "n0", "k": 1000}).json()["results"][0]
    assert [one["id"] for one in everything if one["id"] in fitting] == names, "in the order of the whole search"


def test_indexes_count_in_the_memory_of_the_collection(indexed: TestClient) -> None:
    shelf = indexed.app.state.core.shelf
    before = shelf.memory()[1]
    body = {"id": "n0", "filter": {"never asked for before": 1}}
    indexed.post("/v1/collections/indexed/query", json=body).raise_for_status()
    assert shelf.memory()[1] > before
