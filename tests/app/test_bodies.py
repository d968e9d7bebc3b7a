"""The one reader of bodies: content types, limits counted while streaming, parameters, JSON that can be sent back."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.bodies import AT_ONCE_BYTES, plain_json
from app.main import create_app
from app.settings import Settings
from tests.conftest import png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"
LIMIT = 100_000
READERS = [
    ("POST", "/images"),
    ("POST", "/anomaly"),
    ("POST", "/query"),
    ("PUT", "/groups/g"),
    ("POST", "/groups/anomaly"),
]
JSON_READERS = [("PUT", ""), ("PATCH", ""), ("PATCH", "/images/a"), ("POST", "/images/delete")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An application that takes bodies up to LIMIT and eight files."""
    settings = Settings(
        data=tmp_path_factory.mktemp("small"),
        weights="stand-in",
        image_size=32,
        threads=1,
        body_limit_bytes=LIMIT,
        files_limit=8,
        json_limit_values=1000,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.put(C).raise_for_status()
        yield client


def stream(client: TestClient, verb: str, path: str, chunk: bytes, headers: dict[str, str]) -> tuple[int, dict, int]:
    """Send chunks without end and without announcing a length: status, body, and how many chunks were taken."""
    taken = 0
    answer: dict[str, object] = {"body": b""}

    async def receive() -> dict[str, object]:
        nonlocal taken
        taken += 1
        assert taken < 10_000, "the body is read without end"
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: dict) -> None:
        answer.update(status=message.get("status", answer.get("status")))
        answer["body"] += message.get("body", b"")

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": verb, "path": path,
        "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("test", 1), "server": ("test", 80), "state": {},
    }  # fmt: skip
    client.portal.call(client.app, scope, receive, send)
    return answer["status"], json.loads(answer["body"]), taken


@pytest.mark.parametrize(("verb", "path"), [*READERS, *JSON_READERS])
def test_an_endless_body_is_refused_as_soon_as_it_is_too_large(small: TestClient, verb: str, path: str) -> None:
    kind = "application/json" if (verb, path) in JSON_READERS else "image/png"
    headers = {"content-type": kind, "transfer-encoding": "chunked"}
    status, body, taken = stream(small, verb, C + path, b" " * 10_000, headers)
    assert (status, body["code"]) == (413, "body_too_large")
    assert taken == LIMIT // 10_000 + 1


@pytest.mark.parametrize(("verb", "path"), [*READERS, *JSON_READERS])
def test_an_announced_length_over_the_limit_is_refused_before_anything_is_read(
    small: TestClient, verb: str, path: str
) -> None:
    kind = "application/json" if (verb, path) in JSON_READERS else "image/png"
    headers = {"content-type": kind, "content-length": str(LIMIT + 1)}
    status, body, taken = stream(small, verb, C + path, b" ", headers)
    assert (status, body["code"], taken) == (413, "body_too_large", 0)


def test_a_length_that_lies_is_counted(small: TestClient) -> None:
    headers = {"content-type": "image/png", "content-length": "10"}
    status, body, _ = stream(small, "POST", f"{C}/images", b" " * 10_000, headers)
    assert (status, body["code"]) == (413, "body_too_large")


def test_a_chunked_body_within_the_limit_is_read(small: TestClient) -> None:
    data = png(1)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(data), 500):
            yield data[start : start + 500]

    answer = small.post(f"{C}/images", content=chunks(), headers={"content-type": "image/png"})
    assert answer.status_code == 201


def test_a_body_just_as_large_as_the_limit_is_read(small: TestClient) -> None:
    body = b'{"description": "x"}'.ljust(LIMIT)
    answer = small.put(C, content=body, headers={"content-type": "application/json"})
    assert len(body) == LIMIT and answer.status_code == 200
    problem_of(small.put(C, content=body + b" ", headers={"content-type": "application/json"}), 413)


@pytest.mark.parametrize(("verb", "path"), [("POST", "/query"), ("PUT", "/groups/g"), *JSON_READERS])
def test_json_that_would_take_much_memory_is_refused_while_it_arrives(small: TestClient, verb: str, path: str) -> None:
    for chunk in (b"1," * 100, b"[" * 100, b"{}," * 50):
        kind = {"content-type": "application/json; charset=utf-8"}
        status, problem, taken = stream(small, verb, C + path, chunk, kind)
        assert (status, problem["code"]) == (413, "json_too_many_values")
        assert taken <= 12, "nothing is parsed, and no more is read"


def test_values_are_counted_in_json_only(small: TestClient) -> None:
    answer = small.post(f"{C}/images", content=b"," * 5000, headers={"content-type": "image/png"})
    assert answer.json()["items"][0]["problem"]["code"] == "image_unreadable"
    problem_of(small.post(f"{C}/query", json={"vector": [0.5] * 900}), 422, "width_mismatch")


def test_json_is_read_alike_at_once_and_in_a_thread(shared: TestClient) -> None:
    shared.put(C)
    for spaces in (0, AT_ONCE_BYTES):
        for body, code in ((b'{"vector": [1]}', "width_mismatch"), (b'{"vector": [', "json_malformed")):
            content = body + b" " * spaces
            answer = shared.post(f"{C}/query", content=content, headers={"content-type": "application/json"})
            problem_of(answer, 422, code)


def test_more_files_than_allowed(small: TestClient) -> None:
    files = [("files", (f"{number}.png", b"x")) for number in range(9)]
    problem_of(small.post(f"{C}/anomaly", files=files), 422, "multipart_malformed")
    problem_of(small.post(f"{C}/anomaly", json={"images": ["eA=="] * 9}), 413, "too_many_files")


def test_images_of_a_form_are_written_to_no_temporary_folder(
    shared: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.put(C)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    image = png(1) + bytes(3 * 2**20)
    answer = shared.post(f"{C}/images", files=[("files", ("a.png", image)), ("files", ("b.png", b"x"))])
    assert ["problem" in item for item in answer.json()["items"]] == [False, True]


@pytest.mark.parametrize(("verb", "path"), READERS)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "video/mp4", "rubbish"])
def test_other_content_types_are_refused_by_readers_of_images(
    shared: TestClient, verb: str, path: str, kind: str
) -> None:
    shared.put(C)
    answer = shared.request(verb, C + path, content=b"x=1", headers={"content-type": kind})
    problem_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(("verb", "path"), JSON_READERS)
@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "image/png"])
def test_other_content_types_are_refused_by_readers_of_json(
    shared: TestClient, verb: str, path: str, kind: str
) -> None:
    shared.put(C)
    answer = shared.request(verb, C + path, content=b'{"k": 3}', headers={"content-type": kind})
    problem_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nrubbish"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n' + b"1"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"[1]"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"ids": [NaN]}'),
        ("application/json", b'{"k": 1e999}'),
        ("application/json", b'{"\\ud800": 1}'),
        ("application/json", b'{"ids": "' + b"9" * 5000 + b'"}'),
        ("application/json", b'{"k": ' + b"9" * 5000 + b"}"),
        ("application/merge-patch+json", b"{"),
    ],
)
@pytest.mark.parametrize("path", ["/images", "/anomaly", "/query"])
def test_a_malformed_body_is_the_callers_fault(shared: TestClient, path: str, kind: str, body: bytes) -> None:
    shared.put(C)
    problem_of(shared.post(C + path, content=body, headers={"content-type": kind}), 422)


def test_a_file_under_another_name_and_a_field_given_twice(shared: TestClient) -> None:
    shared.put(C)
    problem_of(shared.post(f"{C}/images", files={"picture": ("a.png", png(1))}), 422, "field_unknown")
    boundary = "b"
    part = '--b\r\nContent-Disposition: form-data; name="mode"\r\n\r\nupsert\r\n'
    answer = shared.post(
        f"{C}/images",
        content=f"{part}{part}--b--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    problem_of(answer, 422, "conflicting_parameters")
    problem_of(
        shared.post(f"{C}/images?mode=upsert&mode=upsert", files={"files": png(1)}), 422, "conflicting_parameters"
    )


def test_query_and_form_may_agree_but_not_differ(shared: TestClient) -> None:
    shared.put(C)
    files = {"files": ("a.png", png(1))}
    assert shared.post(f"{C}/images?role=example", files=files, data={"role": "example"}).status_code == 201
    answer = shared.post(f"{C}/images?role=example", files=files, data={"role": "normal"})
    problem_of(answer, 422, "conflicting_parameters")
    problem_of(shared.post(f"{C}/images?rol=example", files=files), 422, "invalid")
    problem_of(shared.post(f"{C}/images", files=files, data={"rol": "example"}), 422, "invalid")


def test_an_odd_file_name_is_kept_as_it_came(shared: TestClient) -> None:
    shared.put("/v1/collections/names")
    for place, name in enumerate(["../../etc/passwd", "Ω é.png", 'a"b.png']):
        answer = shared.post("/v1/collections/names/images", files={"files": (name, png(place))})
        assert answer.status_code == 201
        image_id = answer.json()["items"][0]["id"]
        shown = shared.get(f"/v1/collections/names/images/{image_id}").json()
        assert len(image_id) == 64 and shown["metadata"]["filename"].replace("%22", '"') == name


@pytest.mark.parametrize("value", [None, 1, -1.5, "é", "\U0001f600", [], {"a": [{"b": [True]}]}, "\x00"])
def test_plain_json_lets_through_what_json_can_hold(value: object) -> None:
    assert plain_json(value) is value


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": {"b": "\udc00"}}, {"\ud800": 1}, {"a": [-float("inf")]}]
)
def test_plain_json_stops_what_it_cannot(value: object) -> None:
    with pytest.raises(ValueError, match="must"):
        plain_json(value)


def test_plain_json_stops_at_a_depth() -> None:
    value: object = 1
    for _ in range(62):
        value = [value]
    assert plain_json(value) is value
    with pytest.raises(ValueError, match="64 deep"):
        plain_json([[value]])
