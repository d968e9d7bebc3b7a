"""Idempotency-Key: a repeated write gets the first answer and changes nothing."""

import threading
from datetime import datetime, timedelta

import pytest
from starlette.testclient import TestClient

from app.clock import utc_now
from app.idempotency import Idempotency, Key
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Serve
from tests.conftest import png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"
A, B = png(1), png(2)


def post(client: TestClient, *images: bytes, key: str | None = "k1", **parameters: object):
    client.put(C).raise_for_status()
    headers = {} if key is None else {"idempotency-key": key}
    files = [("files", (f"{place}.png", data)) for place, data in enumerate(images)]
    return client.post(f"{C}/images", files=files, params=parameters, headers=headers)


def test_a_repeat_gets_the_same_answer_under_a_flag_and_changes_nothing(client: TestClient) -> None:
    first = post(client, A, B)
    revision = client.get(C).json()["revision"]
    again = post(client, A, B)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["idempotent-replayed"] == "true" and "idempotent-replayed" not in first.headers
    assert client.get(C).json()["revision"] == revision
    # The negative control: without the key the same images are duplicates, not created.
    assert post(client, A, B, key=None).json()["duplicate"] == 2
    assert post(client, A, B, key="k2").json()["duplicate"] == 2


def test_another_multipart_boundary_is_the_same_request(client: TestClient) -> None:
    client.put(C)

    def send(boundary: str):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
        return client.post(
            f"{C}/images",
            content=head + A + f"\r\n--{boundary}--\r\n".encode(),
            headers={"content-type": f"multipart/form-data; boundary={boundary}", "idempotency-key": "k"},
        )

    first, again = send("one"), send("another")
    assert first.status_code == 201 and again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


def test_another_body_or_other_parameters_are_refused(client: TestClient) -> None:
    post(client, A)
    for answer in (post(client, B), post(client, A, B), post(client, A, role="anomalous")):
        problem_of(answer, 422, "idempotency_key_reused")
    assert client.get(C).json()["images"] == 1


def test_a_key_belongs_to_one_path(client: TestClient) -> None:
    post(client, A)
    client.put("/v1/collections/d")
    other = client.post("/v1/collections/d/images", files={"files": ("0.png", B)}, headers={"idempotency-key": "k1"})
    assert other.status_code == 201 and other.json()["created"] == 1


def test_an_answer_with_refused_images_is_repeated_too(client: TestClient) -> None:
    first, again = post(client, A, b"rubbish"), post(client, A, b"rubbish")
    assert first.status_code == again.status_code == 207 and again.json() == first.json()


def test_a_request_that_failed_may_be_repeated(client: TestClient) -> None:
    answer = client.post(f"{C}/images", files={"files": ("0.png", A)}, headers={"idempotency-key": "k1"})
    problem_of(answer, 404)
    assert post(client, A).status_code == 201


def test_answers_survive_a_restart_and_are_known_to_other_processes(serve: Serve) -> None:
    with serve() as client:
        first = post(client, A)
    with serve() as client, serve() as other:
        for one in (client, other):
            again = post(one, A)
            assert again.json() == first.json() and again.headers["idempotent-replayed"] == "true"


def test_while_the_first_is_running_a_second_is_told_to_wait(client: TestClient, monkeypatch) -> None:
    client.put(C)
    store = client.app.state.core.store
    entered, leave = threading.Event(), threading.Event()
    put = type(store).put

    def slow(self, items) -> None:
        entered.set()
        assert leave.wait(30)
        put(self, items)

    monkeypatch.setattr(type(store), "put", slow)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(post(client, A)))
    thread.start()
    assert entered.wait(30)
    problem_of(post(client, A), 409, "idempotency_running")
    leave.set()
    thread.join()
    assert answers[0].status_code == 201
    assert post(client, A).headers["idempotent-replayed"] == "true"


def test_two_processes_at_once_store_once(serve: Serve, monkeypatch) -> None:
    """The other process answers between this one's look at the record and its own write."""
    with serve() as one, serve() as other:
        one.put(C)
        put = type(one.app.state.core.store).put

        def overtaken(self, items) -> None:
            put(self, items)
            monkeypatch.undo()
            assert post(other, A).status_code == 201

        monkeypatch.setattr(type(one.app.state.core.store), "put", overtaken)
        problem_of(post(one, A), 409, "idempotency_running")
        assert post(one, A).headers["idempotent-replayed"] == "true"
        assert one.get(C).json()["revision"] == 1


def test_a_collection_made_again_does_not_answer_for_the_old_one(client: TestClient) -> None:
    client.put("/v1/collections/cc")
    other = client.post("/v1/collections/cc/images", files={"files": ("0.png", A)}, headers={"idempotency-key": "k1"})
    post(client, A)
    client.delete(C).raise_for_status()
    again = post(client, A)
    assert "idempotent-replayed" not in again.headers and client.get(C).json()["images"] == 1
    # A neighbour whose name begins alike keeps its answers.
    repeat = client.post("/v1/collections/cc/images", files={"files": ("0.png", A)}, headers={"idempotency-key": "k1"})
    assert repeat.headers["idempotent-replayed"] == "true" and repeat.json() == other.json()


def test_an_answer_is_forgotten_after_its_hours(settings: Settings) -> None:
    now = [utc_now()]

    def clock() -> datetime:
        return now[0]

    with TestClient(create_app(settings, clock)) as client:
        post(client, A)
        now[0] += timedelta(hours=23.9)
        assert post(client, A).headers["idempotent-replayed"] == "true"
        now[0] += timedelta(hours=0.2)
        late = post(client, A)
        assert "idempotent-replayed" not in late.headers and late.json()["duplicate"] == 1


def test_what_was_sent_is_hashed_only_where_there_is_a_key() -> None:
    asked: list[str] = []

    def sent() -> str:
        asked.append("once")
        return "digest"

    assert Key("POST /x", None).over(sent) is None and not asked
    assert Key("POST /x", "k").over(sent) == Key("POST /x", "k").over("digest") and asked == ["once"]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(client: TestClient, key: str) -> None:
    problem_of(post(client, A, key=key), 422)
    assert client.get(C).json()["images"] == 0


def test_a_failure_inside_leaves_the_key_free(client: TestClient, monkeypatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Idempotency, "remember", broken)
        problem_of(post(client, A), 500, "internal")
    assert client.get(C).json()["images"] == 0  # the write went with the answer that could not be remembered
    assert post(client, A).status_code == 201
