"""The client against the interface as it describes itself: a path, or a parameter, that it cannot ask fails here."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from oddity_client import Client, Collection
from oddity_client.calls import Call, Listen, operation, streamed

LEFT_OUT = {
    ("GET", "/metrics"): "text for Prometheus",
    ("POST", "/compat/lookoutvision/2020-11-20/projects/{}/models/{}/detect"): "for clients of the other service",
}
UNASKED = {
    "cursor": "pages follow one another by themselves",
    "limit": "called `page` where there are pages",
    "wait": "`wait` and `events` of the client do that",
}
CALLED = {"files": "images", "items": "images"}  # what a `NewImage` brings with it
NAME = "x-name"  # stands for whatever a path names
VALUES: dict[str, Any] = {
    "images": [],
    "scopes": ["read"],
    "version": 77,
    "fraction": 0.1,
    "method": "kmeans",
    "size": 5,
    "levels": None,
    "kind": "missed",
    "path": "file",
}


class Way(NamedTuple):
    """One method of the client, and the request that it makes."""

    name: str
    call: Call[Any]
    parameters: set[str]
    takes_all: bool


def ways() -> Iterator[Way]:
    """Every method of both clients' parts, asked for what it would send."""
    line: Any = None
    for place in (Client(http=line), Collection(NAME, line)):
        for name in dir(type(place)):
            found = inspect.getattr_static(type(place), name)
            if not isinstance(found, operation | streamed):
                continue
            signature = list(inspect.signature(found._build).parameters.values())[1:]  # but for self
            needed = [
                VALUES.get(one.name, NAME)
                for one in signature
                if one.default is one.empty and one.kind is not one.VAR_KEYWORD
            ]
            made = found._build(place, *needed)
            if name.endswith("_all"):
                continue  # the same request, once for each batch
            step = made if isinstance(made, Call) else next(made)
            call = step.call if isinstance(step, Listen) else step
            assert isinstance(call, Call), name
            yield Way(
                name, call, {one.name for one in signature}, any(one.kind is one.VAR_KEYWORD for one in signature)
            )


def place_of(way: Way) -> tuple[str, str]:
    segments = ["{}" if one in (NAME, "77") else one for one in way.call.path.split("/")]
    return way.call.method, "/".join(segments)


@pytest.fixture(scope="module")
def described(oddity: Client) -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation of /openapi.json by method and path, names left out of the path."""
    return {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path)): told
        for path, methods in oddity.openapi()["paths"].items()
        for method, told in methods.items()
    }


def test_every_path_has_a_method_or_a_reason(described: dict[tuple[str, str], dict[str, Any]]) -> None:
    asked = {place_of(way) for way in ways()} - {("GET", "/openapi.json")}
    assert asked - described.keys() == set(), "the service has no such path"
    assert described.keys() - asked == LEFT_OUT.keys(), "no method of the client, and no reason for that"


def test_every_parameter_can_be_given(described: dict[tuple[str, str], dict[str, Any]], oddity: Client) -> None:
    schemas = oddity.openapi()["components"]["schemas"]
    taken: dict[tuple[str, str], set[str]] = {}
    takes_all = {place_of(way) for way in ways() if way.takes_all}
    for way in ways():
        taken.setdefault(place_of(way), set()).update(way.parameters)
    missing = []
    for place in described.keys() & taken.keys() - takes_all:
        told = described[place]
        names = {one["name"] for one in told.get("parameters", []) if one["in"] == "query"} - UNASKED.keys()
        for content in told.get("requestBody", {}).get("content", {}).values():
            schema = content.get("schema", {})
            schema = schemas[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema
            names |= schema.get("properties", {}).keys()
        missing += [f"{' '.join(place)}: {one}" for one in names if CALLED.get(one, one) not in taken[place]]
    assert sorted(missing) == []
