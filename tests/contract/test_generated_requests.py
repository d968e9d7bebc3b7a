"""Requests made up from the interface's own description: none brings the service down, and every refusal has the one
shape. The quick suite tries a few for each path; `make test-api` tries many, jobs and all."""

import socket
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounds
from schemathesis import Case
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import embedders_are_kept  # noqa: F401 - a fixture
from tests.conftest import add, png
from tests.contract.problem_shape import FIELDS

QUICK, MANY = 2, 60
THERE = {"c": "c", "p": "c", "g": "set", "label": "kind", "id": "a", "v": "dn2"}  # half of the requests name these
VERBS = ("get", "put", "post", "patch", "delete")
OPERATIONS = [
    (verb, path) for path, item in create_app(Settings()).openapi()["paths"].items() for verb in VERBS if verb in item
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(
        data=tmp_path_factory.mktemp("generated"), weights="stand-in", image_size=32, threads=1, jobs="off"
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that runs its jobs too."""
    settings = Settings(data=tmp_path_factory.mktemp("working"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def furnish(client: TestClient) -> None:
    """What THERE names, unless a request has just taken it away."""
    if client.get("/v1/collections/c/images/a").status_code == 200:
        return
    add(client, "c", {name: png(number) for number, name in enumerate("abcdefghijkl")})
    client.put("/v1/collections/c/groups/set", json={"ids": ["a", "b"]}).raise_for_status()
    client.put("/v1/collections/c/classes/kind", json={"ids": ["c"]}).raise_for_status()


@cache
def schema_of(application: ASGIApp) -> Any:
    async def running(scope: Scope, receive: Receive, send: Send) -> None:
        # schemathesis would start the application before a test and end it after: it has been started, and goes on.
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{phase}"
            await send({"type": f"lifespan.{phase}.complete"})

    return schemathesis.openapi.from_asgi("/openapi.json", running)


def try_requests(client: TestClient, verb: str, path: str, count: int) -> None:
    operation = schema_of(client.app)[path][verb]

    @given(case=operation.as_strategy())
    @bounds(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def each(case: Case) -> None:
        nonlocal number
        number += 1
        if number % 2 and path != "/v1/collections/{c}":
            furnish(client)
            case.path_parameters = {name: THERE.get(name, "x") for name in case.path_parameters or {}}
        (case.query or {}).pop("wait", None)  # for the end of jobs that nobody runs here
        answer = case.call(headers={"Host": "localhost"})
        told = f"{case.as_curl_command()}\n{answer.status_code} {answer.content[:500]!r}"
        assert answer.status_code < 500 or answer.status_code == 503, told
        if answer.status_code >= 400 and not path.startswith("/compat/"):
            assert answer.headers["content-type"] == ["application/problem+json"], told
            assert answer.json().keys() >= FIELDS, told

    number = 0
    each()


@pytest.mark.parametrize(("verb", "path"), OPERATIONS)
def test_a_few_requests(service: TestClient, verb: str, path: str) -> None:
    try_requests(service, verb, path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "path"), OPERATIONS)
def test_many_requests(working: TestClient, verb: str, path: str) -> None:
    try_requests(working, verb, path, MANY)


SVG = {"content-type": "image/svg+xml"}
URL = "http://203.0.113.9/x.png"  # an address for documents, which nobody has


@pytest.mark.parametrize(
    ("verb", "path", "sent"),
    [
        ("post", "images", {"json": {"images": [URL]}}),
        ("post", "images", {"json": {"images": [{"url": URL}]}}),
        ("post", "images", {"json": {"images": [{"content": URL}]}}),
        ("post", "images", {"json": {"url": URL}}),
        ("post", "anomaly", {"json": {"images": [{"content": f"data:{URL},"}]}}),
        ("post", "query", {"json": {"id": URL}}),
        ("post", "images/import", {"json": {"folder": URL}}),
        ("post", "restore", {"json": {"snapshot": URL}}),
        ("post", "images", {"content": f'<svg><image href="{URL}"/></svg>', "headers": SVG}),
        ("put", "", {"json": {"weights": URL}}),
        ("put", "", {"json": {"weights": f"file:{URL}"}}),
        ("put", "", {"json": {"weights": "torchvision"}}),
    ],
)  # fmt: skip
def test_nothing_is_ever_fetched(
    service: TestClient, monkeypatch: pytest.MonkeyPatch, verb: str, path: str, sent: dict
) -> None:
    asked: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address) or [])
    name = "fetching" if path else "fetched"
    if path:
        service.put(f"/v1/collections/{name}").raise_for_status()
    service.request(verb, f"/v1/collections/{name}/{path}".rstrip("/"), **sent)
    assert asked == []
    with pytest.raises(ConnectionRefusedError), socket.socket() as trapped:  # the trap is one
        trapped.connect(("127.0.0.1", 9))
