"""What a request brought is given up when it is answered, whatever the answer: nobody has to look for it first."""

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.bodies import Upload
from app.main import create_app
from app.settings import Settings
from tests.conftest import add, png

C = "/v1/collections/c"
DAMAGED = png(1)[:-60]
FOREIGN = b"no image at all" * 20
WHOLE = {"content-type": "image/png"}
PATIENCE_S = 5.0


def files(*images: bytes) -> list[Any]:
    return [("files", (f"{place}.png", data, "image/png")) for place, data in enumerate(images)]


def whole(path: str, data: bytes) -> Callable[[TestClient], Any]:
    return lambda client: client.post(f"{C}/{path}", content=data, headers=WHOLE)


def several(path: str, *images: bytes, verb: str = "POST") -> Callable[[TestClient], Any]:
    return lambda client: client.request(verb, f"{C}/{path}", files=files(*images))


@contextmanager
def nobody_looking() -> Iterator[None]:
    """Without the search for objects that refer to each other."""
    gc.disable()
    gc.collect(0)  # what was there before is of another generation from now on
    try:
        yield
    finally:
        gc.enable()


def uploads() -> int:
    """How many there are of those that came while nobody was looking: they are the youngest still."""
    return sum(type(one) is Upload for one in gc.get_objects(generation=0))


def are_given_up() -> bool:
    """Whether none is left, once the thread that answered last has come to an end with it."""
    until = time.monotonic() + PATIENCE_S
    while uploads() and time.monotonic() < until:
        time.sleep(0.05)
    return not uploads()


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (whole("anomaly", png(2)), 200),
        (whole("anomaly", DAMAGED), 207),
        (whole("anomaly", FOREIGN), 207),
        (several("anomaly", png(3), DAMAGED, FOREIGN), 207),
        (whole("query", DAMAGED), 207),
        (several("query", FOREIGN, png(4)), 207),
        (several("images", DAMAGED, FOREIGN), 207),
        (several("images?role=nonsense", png(5), DAMAGED), 422),
        (several("classes/odd", FOREIGN, DAMAGED, verb="PUT"), 422),
        (several("groups/anomaly", png(6), png(7), DAMAGED), 207),
        (several("explain", DAMAGED), 207),
        (whole("anomaly?heatmap=true", DAMAGED), 422),
        (several("anomaly?k=0", DAMAGED), 422),
    ],
)
def test_nothing_that_was_sent_outlives_its_answer(
    client: TestClient, ask: Callable[[TestClient], Any], status: int, at_once: int
) -> None:
    check(client, ask, status, at_once)


@pytest.mark.parametrize("data", [DAMAGED, FOREIGN])
def test_nor_does_it_where_processes_decode(settings: Settings, data: bytes) -> None:
    app = create_app(settings.model_copy(update={"decoding": "processes"}))
    with TestClient(app) as client:
        check(client, whole("anomaly", data), 207, at_once=6)


def check(client: TestClient, ask: Callable[[TestClient], Any], status: int, at_once: int) -> None:
    add(client, "c", {f"n{number}": png(100 + number) for number in range(12)})
    ask(client)  # what is loaded at a first time
    with nobody_looking(), ThreadPoolExecutor(at_once) as pool:
        assert are_given_up()
        answers = list(pool.map(lambda _: ask(client).status_code, range(3 * at_once)))
        assert set(answers) == {status}
        assert are_given_up()
