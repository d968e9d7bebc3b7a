"""Each error class of the three trees has one answer, and every answer has the one shape."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.testclient import TestClient

from app import errors
from app.errors import TABLE, ServiceError, describe
from app.main import create_app
from app.settings import Settings
from index.errors import VectorIndexError
from models.errors import ModelsError
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

OURS = (500, "internal")
# Class -> status and code. A class that is missing here fails the first test: whoever adds one decides its answer.
ANSWERS = {
    "ServiceError": OURS,
    "Unauthenticated": (401, "key_missing"),
    "Forbidden": (403, "forbidden"),
    "NotFound": (404, "not_found"),
    "TooSlow": (408, "body_too_slow"),
    "Conflict": (409, "conflict"),
    "PreconditionFailed": (412, "precondition_failed"),
    "TooLarge": (413, "too_large"),
    "UnsupportedMedia": (415, "unsupported_media_type"),
    "Invalid": (422, "invalid"),
    "TooMany": (429, "rate_exceeded"),
    "BytesDamaged": (500, "bytes_damaged"),
    "Busy": (503, "busy"),
    "ModelsError": OURS,
    "InputError": OURS,  # a family: only its members are raised
    "ImageUnreadable": (422, "image_unreadable"),
    "ImageTooLarge": (413, "image_too_large"),
    "ImageCrashed": (422, "image_crashed"),
    "ImageTooSlow": (422, "image_too_slow"),
    "ParameterInvalid": (422, "parameter_invalid"),
    "SetSizeMismatch": (422, "set_size_mismatch"),
    "StateError": OURS,  # a family
    "BankTooSmall": (409, "bank_too_small"),
    "MethodUnknown": (404, "scorer_unknown"),
    "NothingToCompare": (409, "nothing_to_compare"),
    "FitRefused": (409, "fit_refused"),
    "LibraryMissing": (409, "library_missing"),
    "StateDamaged": (500, "scorer_damaged"),
    "WeightsError": OURS,  # a family
    "WeightsMissing": (409, "weights_missing"),
    "WeightsDamaged": (500, "weights_damaged"),
    "FingerprintMismatch": (409, "fingerprint_mismatch"),
    "EngineUnusable": (409, "engine_unusable"),
    "RuntimeMismatch": (409, "runtime_mismatch"),
    "CatalogueError": OURS,  # a family; its members stop the service when it starts
    "CardInvalid": OURS,
    "MethodNameTaken": OURS,
    "MethodIncomplete": OURS,
    "Momentary": OURS,  # a family
    "QueueFull": (503, "busy"),
    "DeadlinePassed": (503, "deadline_passed"),
    "DecoderUnavailable": (503, "decoder_unavailable"),
    "VectorIndexError": OURS,
    "VectorsRefused": OURS,  # a family
    "WidthMismatch": (422, "width_mismatch"),
    "NotFinite": (422, "not_finite"),
    # What follows cannot come from a caller: the service hands out ids and counts itself.
    "CountMismatch": OURS,
    "IdInvalid": OURS,
    "CountOutOfRange": OURS,
    "IdTaken": OURS,
    "IdUnknown": OURS,
    "KindUnknown": OURS,
    "SnapshotDamaged": OURS,
}


def family(kind: type[Exception]) -> Iterator[type[Exception]]:
    """A class of ours and all below it; classes that tests or plug-ins define do not count.

    Nor do those of the training of a backbone: no request can meet them, and who imported them decides if they exist.
    """
    if kind.__module__.startswith("models.pretraining"):
        return
    if kind.__module__.partition(".")[0] in ("app", "models", "index"):
        yield kind
    for below in kind.__subclasses__():
        yield from family(below)


CLASSES = [kind for root in (ServiceError, ModelsError, VectorIndexError) for kind in family(root)]


def test_every_class_has_an_answer_and_every_answer_a_class() -> None:
    assert sorted(kind.__name__ for kind in CLASSES) == sorted(ANSWERS)


def test_the_table_holds_classes_of_the_lower_layers_once_and_none_of_the_services_own() -> None:
    lower = [kind for root in (ModelsError, VectorIndexError) for kind in family(root)]
    assert set(TABLE) <= {*lower, OperationalError, NoConnection}
    assert not any(issubclass(kind, ServiceError) for kind in TABLE)
    # A class finds its row itself or through one parent that has one: never through two.
    for kind in lower:
        assert describe(kind("x"))[:2] == TABLE[next(one for one in kind.__mro__ if one in TABLE)]


@pytest.fixture(scope="module")
def raising(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The real application with one more path for each class, which raises it."""
    app = create_app(Settings(data=tmp_path_factory.mktemp("raising"), weights="stand-in", image_size=32, threads=1))

    def path_that_raises(kind: type[Exception]):
        async def path() -> None:
            raise kind("A sentence for the reader.")

        return path

    async def operational() -> None:
        raise OperationalError("SELECT secret", {}, Exception("password"))

    for kind in CLASSES:
        app.add_api_route(f"/raise/{kind.__name__}", path_that_raises(kind))

    async def crowded() -> None:
        raise NoConnection("QueuePool limit of secret")

    app.add_api_route("/raise/OperationalError", operational)
    app.add_api_route("/raise/NoConnection", crowded)
    app.add_api_route("/raise/ZeroDivisionError", path_that_raises(ZeroDivisionError))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_class_leaves_as_its_answer(raising: TestClient, kind: type[Exception]) -> None:
    status, code = ANSWERS[kind.__name__]
    body = problem_of(raising.get(f"/raise/{kind.__name__}"), status, code)
    is_told = status != 500 or issubclass(kind, ServiceError)
    assert ("A sentence for the reader." in body["detail"]) == is_told


def test_a_bug_is_logged_and_its_message_kept_from_the_caller(raising: TestClient, caplog) -> None:
    with caplog.at_level(logging.ERROR, "oddity"):
        body = problem_of(raising.get("/raise/ZeroDivisionError"), 500, "internal")
    assert "A sentence" not in body["detail"]
    assert any(record.exc_info for record in caplog.records)


def test_an_unreachable_record_is_momentary_and_says_nothing_of_itself(raising: TestClient) -> None:
    for path in ("/raise/OperationalError", "/raise/NoConnection"):
        body = problem_of(raising.get(path), 503, "record_unavailable")
        assert "secret" not in str(body) and "password" not in str(body)


def test_the_shape_check_can_fail() -> None:
    def answer(body: dict, **headers: str) -> httpx2.Response:
        request = httpx2.Request("GET", "http://test/x")
        return httpx2.Response(404, json=body, headers={"content-type": errors.MEDIA_TYPE, **headers}, request=request)

    whole = {
        "type": "urn:oddity:problem:x", "title": "Not Found", "status": 404,
        "detail": "d", "instance": "/x", "code": "x",
    }  # fmt: skip
    problem_of(answer(whole), 404, "x")
    for field in whole:
        with pytest.raises(AssertionError):
            problem_of(answer({name: value for name, value in whole.items() if name != field}), 404)
    for wrong in ({"status": 400}, {"type": "about:blank"}, {"instance": "/y"}, {"title": "Gone"}, {"detail": ""}):
        with pytest.raises(AssertionError):
            problem_of(answer({**whole, **wrong}), 404)
    with pytest.raises(AssertionError):
        problem_of(answer(whole, **{"content-type": "application/json"}), 404)


# Below: the same answers, brought about for real.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with one image and narrow limits."""
    settings = Settings(
        data=tmp_path_factory.mktemp("small"),
        weights="stand-in",
        image_size=32,
        threads=1,
        body_limit_bytes=50_000,
        image_limit_pixels=2000,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", {"a": png(1)})
        client.put("/v1/collections/empty")
        yield client


TEXT, JSON = {"content-type": "text/csv"}, {"content-type": "application/json"}
IMAGE = {"headers": {"content-type": "image/png"}, "content": png(2)}
C = "/v1/collections/c"


@pytest.mark.parametrize(
    ("verb", "path", "sent", "status", "code"),
    [
        ("GET", "/nothing", {}, 404, "not_found"),
        ("PUT", "/v1/collections", {}, 405, "method_not_allowed"),
        ("DELETE", "/", {}, 405, "method_not_allowed"),
        ("GET", "/v1/collections/none", {}, 404, "collection_unknown"),
        ("GET", f"{C}/images/none", {}, 404, "image_unknown"),
        ("GET", f"{C}/groups/none", {}, 404, "group_unknown"),
        ("GET", f"{C}/classes/none", {}, 404, "class_unknown"),
        ("POST", f"{C}/classify", IMAGE, 409, "no_classes"),
        ("PATCH", C, {"json": {"fit": "crop"}}, 409, "embedding_fixed"),
        ("PUT", "/v1/collections/d", {"json": {"weights": "torchvision"}}, 409, "weights_missing"),
        ("POST", "/v1/collections/empty/anomaly", IMAGE, 409, "bank_too_small"),
        ("POST", f"{C}/anomaly", {"json": {"ids": ["a"]}}, 409, "nothing_to_compare"),
        ("POST", f"{C}/groups/anomaly", {"json": {"ids": ["a"]}}, 409, "bank_too_small"),
        ("DELETE", C, {"headers": {"if-match": '"0-0"'}}, 412, "precondition_failed"),
        ("POST", f"{C}/images", {**IMAGE, "content": b"x" * 60_000}, 413, "body_too_large"),
        ("POST", f"{C}/images", {"content": b"x", "headers": TEXT}, 415, "unsupported_media_type"),
        ("PUT", C, {"content": b"x", "headers": TEXT}, 415, "unsupported_media_type"),
        ("PUT", C, {"json": {"backbone": "vgg"}}, 422, "parameter_invalid"),
        ("PUT", C, {"json": {"k": "x"}}, 422, "invalid"),
        ("GET", f"{C}/images?limit=x", {}, 422, "invalid"),
        ("POST", f"{C}/images", {}, 422, "no_images"),
        ("POST", f"{C}/query", {"json": {"vector": [3e38] * 512}}, 422, "not_finite"),
        ("POST", f"{C}/query", {"json": {"vector": [1.0]}}, 422, "width_mismatch"),
        ("POST", f"{C}/groups/anomaly", {**IMAGE, "content": b"x"}, 422, "no_images"),
        ("PATCH", f"{C}/images/a", {"content": b"[" * 9000, "headers": JSON}, 400, "bad_request"),
    ],
)  # fmt: skip
def test_an_answer_for_real(small: TestClient, verb: str, path: str, sent: dict, status: int, code: str) -> None:
    problem_of(small.request(verb, path, **sent), status, code)


@pytest.mark.parametrize(
    ("data", "status", "code"), [(b"text", 422, "image_unreadable"), (png(1, side=64), 413, "image_too_large")]
)
@pytest.mark.parametrize("path", ["images", "anomaly", "query"])
def test_a_problem_of_one_item_has_the_same_code(
    small: TestClient, path: str, data: bytes, status: int, code: str
) -> None:
    answer = small.post(f"{C}/{path}", content=data, headers={"content-type": "image/png"})
    assert answer.status_code == 207 and answer.headers["content-type"] == "application/json"
    body = answer.json()
    problem = (body.get("items") or body["results"])[0]["problem"]
    assert (problem["status"], problem["code"]) == (status, code) and problem["detail"]


def test_a_deadline_that_passes(tmp_path: Path) -> None:
    usual = Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(usual)) as client:
        client.put(C).raise_for_status()
    with TestClient(create_app(usual.model_copy(update={"deadline_s": 1e-9})), raise_server_exceptions=False) as client:
        problem_of(client.post(f"{C}/images", **IMAGE), 503, "deadline_passed")
    with TestClient(create_app(usual)) as client:
        assert client.get(C).json()["images"] == 0


def test_more_requests_than_may_wait(tmp_path: Path, monkeypatch) -> None:
    settings = Settings(
        data=tmp_path, weights="stand-in", image_size=32, threads=1, inference_slots=1, queue_limit_requests=1
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.put(C).raise_for_status()
        core = client.app.state.core
        held, entered = threading.Event(), threading.Event()
        get = type(core.shelf).get

        def slow(shelf, *given):
            entered.set()
            assert held.wait(30)
            return get(shelf, *given)

        monkeypatch.setattr(type(core.shelf), "get", slow)
        answers: list[httpx2.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(client.get(f"{C}/index"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert entered.wait(30)
        slots = client.app.state.slots
        while slots._taken < 2:
            assert any(thread.is_alive() for thread in threads)
        problem_of(client.get(C), 503, "busy")
        for probe in ("/healthz", "/readyz", "/metrics"):
            assert client.get(probe).status_code == 200  # alive all the same
        held.set()
        for thread in threads:
            thread.join()
        assert [one.status_code for one in answers] == [200, 200]
        assert client.get(C).status_code == 200


def test_a_record_that_cannot_be_opened(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = Settings(data=data, weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.put(C).raise_for_status()
        client.app.state.core.database.engine.dispose()
        data.rename(tmp_path / "away")
        problem_of(client.get(C), 503, "record_unavailable")
        body = problem_of(client.get("/readyz"), 503, "not_ready")
        assert body["checks"] == {**body["checks"], "record": "OperationalError"}
        (tmp_path / "away").rename(data)
        assert client.get(C).status_code == 200 and client.get("/readyz").status_code == 200


def test_weights_that_are_missing_make_the_service_not_ready(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, weights="file:none.safetensors", threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        body = problem_of(client.get("/readyz"), 503, "not_ready")
        assert "none.safetensors" in body["checks"]["embedding"] and body["checks"]["record"] == "ok"
        assert client.get("/healthz").status_code == 200
