"""Callers that are slow, or send too much before anything can be told of them, over real connections."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.cli.serve import announced_server
from app.connections import HEAD_LIMIT_BYTES
from app.settings import Settings
from tests.app.cli.serving import started
from tests.app.conftest import embedders_are_kept  # noqa: F401 - a fixture

PATIENCE_S = 30.0
Connect = Callable[[], socket.socket]
LEFT = "who-hung-up"
IMAGE = ("content-type: image/png", "content-length: 5000")
USUAL = {"weights": "stand-in", "image_size": 32, "threads": 1}


@contextmanager
def serving(settings: Settings) -> Iterator[Connect]:
    """A real server; what opens a connection to it."""
    with started(announced_server(settings, "127.0.0.1", 0)) as port:
        yield lambda: socket.create_connection(("127.0.0.1", port), PATIENCE_S)


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    settings = Settings(
        data=tmp_path_factory.mktemp("served"),
        head_wait_s=0.5,
        body_wait_s=0.5,
        answer_wait_s=0.5,
        connections_limit=6,
        drain_s=0,
        **USUAL,
    )
    with serving(settings) as connect:
        yield connect


def answer_of(connection: socket.socket) -> tuple[int, dict]:
    """Status and body of the one answer after which the server closes the connection."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


def request(path: str = "/healthz", *more: str, verb: str = "GET") -> bytes:
    return "\r\n".join([f"{verb} {path} HTTP/1.1", "host: localhost", *more, "", ""]).encode()


def test_a_head_that_does_not_come_is_not_waited_for(connect: Connect) -> None:
    for sent in (b"", b"GET", request()[:-2]):
        with connect() as connection:
            connection.sendall(sent)
            status, body = answer_of(connection)
            assert (status, body["code"]) == (408, "head_too_slow")


def test_a_head_that_drips_is_not_waited_for(connect: Connect) -> None:
    with connect() as connection:
        began = time.monotonic()
        for number in range(1000):
            try:
                connection.sendall(b"GET / HTTP/1.1\r\n" if not number else b"x: y\r\n")
            except OSError:
                break
            time.sleep(0.05)
            assert time.monotonic() - began < PATIENCE_S
        else:
            pytest.fail("the server takes headers for ever")


def test_a_huge_head_is_refused_while_it_arrives(connect: Connect) -> None:
    for piece in (b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1003):
        with connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ")
            try:
                for _ in range(100 * HEAD_LIMIT_BYTES // 1000):
                    connection.sendall(piece)
                status = answer_of(connection)[0]
            except ConnectionError:  # it has been refused while more was sent
                continue
            assert status in (400, 431)


def test_a_huge_head_is_refused_that_comes_with_its_end(connect: Connect) -> None:
    with connect() as connection:
        connection.sendall(request("/healthz", "x: " + HEAD_LIMIT_BYTES * "y"))
        status, body = answer_of(connection)
        assert (status, body["code"]) == (431, "head_too_large")
    with connect() as connection:
        connection.sendall(request("/healthz", "connection: close", "x: " + (HEAD_LIMIT_BYTES - 200) * "y"))
        assert answer_of(connection)[0] == 200


def test_the_end_of_a_head_may_come_in_parts_with_a_large_body_behind_it(connect: Connect) -> None:
    body = 2 * HEAD_LIMIT_BYTES * b"x"
    kind = "content-type: application/json\r\nconnection: close"
    head = f"POST /v1/collections/c/query HTTP/1.1\r\nhost: x\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    with connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (head[:-3], head[-3:-2], head[-2:-1]):
            connection.sendall(part.encode())
            time.sleep(0.05)
        connection.sendall(head[-1:].encode() + body)
        assert answer_of(connection)[0] in (404, 422)  # read to its end, and no JSON


def test_what_is_no_request_is_refused_in_the_shape_of_every_error(connect: Connect) -> None:
    # Not a version of the future: of uvicorn's two parsers, one reads it as it would its own.
    for sent in (b"GARBAGE\r\n\r\n", b"GET / HTTX/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n"):
        with connect() as connection:
            connection.sendall(sent)
            status, body = answer_of(connection)
            assert (status, body["code"], body["status"]) == (400, "request_malformed", 400)


def test_an_answer_that_is_not_read_is_not_waited_for(connect: Connect) -> None:
    path = "/static/swagger/swagger-ui-bundle.js"
    with connect() as connection:
        connection.sendall(request(path, "connection: close"))
        whole = read_to_end(connection)
        assert len(whole) > 10**6
    times = 40  # more than the system keeps for a caller who does not read
    with connect() as connection:
        connection.sendall(request(path) * times)
        time.sleep(2)  # four times as long as is waited
        assert len(read_to_end(connection)) < times * len(whole) / 2


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side ends the connection, in whatever way."""
    received = bytearray()
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)


def test_a_body_that_does_not_come_is_not_waited_for(connect: Connect) -> None:
    for path in ("/v1/collections/c/images", "/v1/collections/c/images/import", "/v1/collections/c/images/delete"):
        for kind in ("application/json", "application/zip", "image/png"):
            with connect() as connection:
                head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 100\r\n\r\n"
                connection.sendall(head.encode() + b"{")
                status, body = answer_of(connection)
                assert (status, body["code"]) in ((408, "body_too_slow"), (415, "unsupported_media_type")), path


def test_a_connection_is_used_again_and_patience_is_not_of_the_whole(connect: Connect) -> None:
    with connect() as connection:
        for _ in range(4):
            connection.sendall(request())
            received = b""
            while b'{"status":"ok"}' not in received:
                piece = connection.recv(65536)
                assert piece, received
                received += piece
            time.sleep(0.2)  # together longer than a head may take
        time.sleep(0.6)  # uvicorn's patience with an idle connection is longer
        connection.sendall(request("/healthz", "connection: close"))
        assert b"200 OK" in connection.recv(65536)


def test_a_slow_body_within_its_rate_is_read(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, body_wait_s=0.3, drain_s=0, **USUAL)
    with serving(settings) as connect, connect() as connection:
        body = b"{" + b" " * 20_000 + b"}"
        head = f"PATCH /v1/collections/c HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"connection: close\r\ncontent-type: application/json\r\n\r\n")
        for start in range(0, len(body), 4000):  # longer in all than an empty body may take
            connection.sendall(body[start : start + 4000])
            time.sleep(0.1)
        status, shown = answer_of(connection)
        assert (status, shown["code"]) == (404, "collection_unknown")  # read, and looked up


def test_one_connection_too_many_is_refused_and_the_others_are_not(connect: Connect) -> None:
    held: list[socket.socket] = []
    try:
        for _ in range(6):
            held.append(connect())
            held[-1].sendall(request())
            assert b"200 OK" in held[-1].recv(65536)
        with connect() as connection:
            status, body = answer_of(connection)
            assert (status, body["code"]) == (503, "too_many_connections")
    finally:
        for one in held:
            one.close()


def test_there_are_no_websockets(connect: Connect) -> None:
    with connect() as connection:
        upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA==")
        connection.sendall(request("/v1/collections", *upgrade))
        assert b" 101 " not in connection.recv(65536)


def test_who_hangs_up_amid_the_body_is_no_failure_of_ours(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "oddity")
    with connect() as connection:
        connection.sendall(
            request("/v1/collections/c/anomaly", *IMAGE, f"x-request-id: {LEFT}", verb="POST") + bytes(9)
        )
    assert told(caplog) == [499]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    with connect() as connection:
        connection.sendall(request("/metrics", "connection: close"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b'status="499"' in received


def test_nor_is_who_hangs_up_before_the_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "oddity")
    with serving(Settings(data=tmp_path, jobs="off", **USUAL)) as connect:
        with connect() as connection:
            connection.sendall(request("/v1/collections/c", "connection: close", verb="PUT"))
            assert b" 201 " in connection.recv(65536)
        waiting = request(
            "/v1/collections/c/calibrate?wait=60", "content-length: 0", f"x-request-id: {LEFT}", verb="POST"
        )
        with connect() as connection:
            connection.sendall(waiting)
        assert told(caplog) == [499]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def told(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The status that the log names for the request `LEFT`, once it does."""
    until = time.monotonic() + PATIENCE_S
    found: list[int] = []
    while not found and time.monotonic() < until:
        time.sleep(0.02)
        facts = [getattr(record, "facts", {}) for record in caplog.records]
        found = [one["status"] for one in facts if one.get("id") == LEFT]
    return found
