"""Metadata filters: what they accept, and that k images come back whenever k of them fit."""

import json

import pytest
from starlette.testclient import TestClient

from app.errors import Invalid
from app.search.filters import parse_filter
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

RARE = 71
FACTS = {"id": "i7", "role": "normal", "label": "ok", "group": None}
METADATA = {
    "line": 3,
    "share": 0.5,
    "good": True,
    "taken": "2026-03-01",
    "tags": ["red", "round", 4],
    "camera": {"id": "cam-2", "lens": {"mm": 35}},
    "dotted.key": 1,
    "nothing": None,
    "must": "a field of this name",
}


def accepts(given: object) -> bool:
    return parse_filter(given).accepts(FACTS, METADATA)


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ({"key": "line", "match": 3}, True),
        ({"key": "line", "match": 3.0}, True),
        ({"key": "line", "match": "3"}, False),
        ({"key": "line", "match": {"value": 3}}, True),
        ({"key": "line", "match": {"any": [1, 3]}}, True),
        ({"key": "good", "match": True}, True),
        ({"key": "good", "match": 1}, False),  # JSON's true is not 1
        ({"key": "line", "match": True}, False),
        ({"key": "nothing", "match": None}, True),
        ({"key": "absent", "match": None}, False),
        ({"key": "line", "in": [1, 2, 3]}, True),
        ({"key": "line", "in": []}, False),
        ({"key": "tags", "match": "round"}, True),
        ({"key": "tags", "match": "blue"}, False),
        ({"key": "tags", "in": ["blue", "red"]}, True),
        ({"key": "tags", "range": {"gt": 3, "lt": 5}}, True),
        ({"key": "camera.id", "match": "cam-2"}, True),
        ({"key": "camera.lens.mm", "range": {"gte": 35, "lte": 35}}, True),
        ({"key": "camera.lens.mm.x", "match": 1}, False),
        ({"key": "dotted.key", "match": 1}, True),
        ({"key": "share", "range": {"gt": 0.5}}, False),
        ({"key": "share", "range": {"gte": 0.5, "lt": 1}}, True),
        ({"key": "taken", "range": {"gte": "2026-01-01", "lt": "2026-04-01"}}, True),
        ({"key": "taken", "range": {"gte": 2026}}, False),  # a text is no number
        ({"key": "good", "range": {"gte": 0}}, False),
        ({"key": "$id", "match": "i7"}, True),
        ({"key": "$role", "in": ["normal", "example"]}, True),
        ({"key": "$label", "match": "ok"}, True),
        ({"key": "$group", "match": None}, True),
        ({"key": "must", "match": "a field of this name"}, True),
    ],
)
def test_a_condition(condition: dict, fits: bool) -> None:
    assert accepts({"must": [condition]}) is fits
    assert accepts({"must": condition}) is fits
    assert accepts({"should": [condition]}) is fits
    assert accepts({"must_not": [condition]}) is not fits


YES, NO = {"key": "line", "match": 3}, {"key": "line", "match": 4}


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        (None, True),
        ({}, True),
        ({"must": []}, True),
        ({"must": [YES, YES]}, True),
        ({"must": [YES, NO]}, False),
        ({"should": [NO, YES]}, True),
        ({"should": [NO, NO]}, False),
        ({"must_not": [NO, NO]}, True),
        ({"must_not": [NO, YES]}, False),
        ({"must": [YES], "should": [NO]}, False),
        ({"must": [YES], "should": [YES], "must_not": [NO]}, True),
        ({"must": [{"should": [NO, YES]}, {"must_not": [NO]}]}, True),
        ({"must_not": [{"must": [YES, NO]}]}, True),
        ({"line": 3, "good": True}, True),
        ({"line": 3, "good": False}, False),
    ],
)
def test_how_conditions_join(given: object, fits: bool) -> None:
    assert accepts(given) is fits


def _nested(depth: int) -> dict:
    return {"must": [_nested(depth - 1)]} if depth else {"must": [YES]}


@pytest.mark.parametrize(
    "given",
    [
        [],
        "text",
        7,
        {"must": "x"},
        {"must": [1]},
        {"must": [{}], "other": []},
        {"must": [{"key": "line"}]},
        {"must": [{"key": 3, "match": 3}]},
        {"must": [{"key": "line", "match": 3, "in": [3]}]},
        {"must": [{"key": "line", "equals": 3}]},
        {"must": [{"key": "line", "match": [3]}]},
        {"must": [{"key": "line", "in": 3}]},
        {"must": [{"key": "line", "range": {}}]},
        {"must": [{"key": "line", "range": {"above": 3}}]},
        {"must": [{"key": "line", "range": {"gt": None}}]},
        {"must": [{"key": "line", "range": {"gt": True}}]},
        {"must": [{"key": "$size", "match": 3}]},
        {"must": [{"key": "line", "in": [[3]] * 65}]},
        {"must": [YES] * 257},
        {"must": [{"key": "line", "in": [3] * 100_001}]},
        _nested(9),
    ],
)
def test_a_filter_that_says_nothing_clear_is_refused(given: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_filter(given)
    assert caught.value.code == "filter_invalid"


def test_as_many_and_as_deep_as_is_allowed() -> None:
    assert accepts({"must": [YES] * 256}) and accepts(_nested(8))


class Looked(str):
    """A text that counts how often it is compared."""

    times = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Looked.times += 1
        return super().__eq__(other)


def test_a_long_list_of_values_is_not_gone_through_for_each_image() -> None:
    chosen = parse_filter({"must": [{"key": "a", "in": [Looked(number) for number in range(10_000)]}]})
    facts: dict = {}
    assert not chosen.accepts(facts, {"a": "none of them"}) and chosen.accepts(facts, {"a": "9999"})
    Looked.times = 0
    for number in range(100):
        assert chosen.accepts(facts, {"a": str(number)})
    assert Looked.times <= 1000


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (1, True),
        (1.0, True),
        (True, False),
        (False, True),
        (0, False),
        (None, True),
        ("1", False),
        ([1, 2], True),
        ({"a": [1]}, True),
        ({"a": [2]}, False),
        ([[1, 2]], True),
        ([[2, 1]], False),
        ([], False),
        (10**30, True),
    ],
)
def test_one_of_several_values_of_every_kind(value: object, fits: bool) -> None:
    wanted = [1, False, None, "a", {"a": [1]}, [1, 2], 10**30]
    assert parse_filter({"must": [{"key": "a", "in": wanted}]}).accepts({}, {"a": value}) is fits


@pytest.fixture(scope="module")
def many(shared: TestClient) -> TestClient:
    """100 images of which one is rare. Tests that use it must not write."""
    shared.put("/v1/collections/c")
    pictures = [png(number, side=16) for number in range(100)]
    items = [
        {"id": f"n{number}", "metadata": {"rare": number == RARE, "number": number}, "label": f"l{number % 4}"}
        for number in range(100)
    ]
    answer = shared.post(
        "/v1/collections/c/images",
        files=[("files", (f"{number}.png", data)) for number, data in enumerate(pictures)],
        data={"items": json.dumps(items)},
    )
    assert answer.json()["created"] == 100
    return shared


def found(client: TestClient, given: object, k: int = 10) -> list[dict]:
    answer = client.post("/v1/collections/c/query", json={"id": "n0", "k": k, "filter": given})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]


def test_a_filter_never_costs_neighbours(many: TestClient) -> None:
    everything = [one["id"] for one in found(many, None, 99)]
    assert len(everything) == 99
    # One in a hundred: it comes, wherever it ranks.
    rare = found(many, {"must": [{"key": "rare", "match": True}]}, 1)
    assert [one["id"] for one in rare] == [f"n{RARE}"]
    # The negative control: among the nearest ten alone it would be missed.
    assert f"n{RARE}" not in everything[:10]
    tenth = found(many, {"must": [{"key": "number", "range": {"gte": 85}}]}, 10)
    assert [one["id"] for one in tenth] == [one for one in everything if int(one[1:]) >= 85][:10]
    labelled = found(many, {"must": [{"key": "$label", "match": "l1"}]}, 50)
    assert [one["id"] for one in labelled] == [one for one in everything if int(one[1:]) % 4 == 1]
    # The image asked about fits its own filter and is left out all the same: k others come.
    assert len(found(many, {"must": [{"key": "$label", "match": "l0"}]}, 24)) == 24
    assert found(many, {"must": [{"key": "rare", "match": "no"}]}) == []


def test_a_filter_goes_by_form_query_and_json_alike(many: TestClient) -> None:
    given = {"must": [{"key": "rare", "match": True}]}
    wanted = found(many, given, 1)
    picture = {"files": ("0.png", png(0, side=16))}
    by_form = many.post("/v1/collections/c/query", files=picture, data={"filter": json.dumps(given), "k": "1"})
    by_query = many.post("/v1/collections/c/query", params={"filter": json.dumps(given), "k": 1}, files=picture)
    for answer in (by_form, by_query):
        assert [one["id"] for one in answer.json()["results"][0]] == [one["id"] for one in wanted]
    conflict = many.post("/v1/collections/c/query?filter={}", files=picture, data={"filter": json.dumps(given)})
    problem_of(conflict, 422, "conflicting_parameters")


def test_an_unknown_fact_is_refused_even_where_nothing_is_stored(client: TestClient) -> None:
    client.put("/v1/collections/c")
    body = {"vector": [1.0] * 512, "filter": {"must": [{"key": "$size", "match": 1}]}}
    problem_of(client.post("/v1/collections/c/query", json=body), 422, "filter_invalid")


def test_a_change_of_metadata_counts_at_once(client: TestClient) -> None:
    add(client, "c", {f"n{number}": png(number) for number in range(4)})
    given = {"must": [{"key": "rare", "match": True}]}
    client.patch("/v1/collections/c/images/n2", json={"metadata": {"rare": True}}).raise_for_status()
    assert [one["id"] for one in found(client, given)] == ["n2"]
    client.patch("/v1/collections/c/images/n3", json={"metadata": {"rare": True}}).raise_for_status()
    client.patch("/v1/collections/c/images/n2", json={"metadata": {"rare": None}}).raise_for_status()
    assert [one["id"] for one in found(client, given)] == ["n3"]
