"""What is sent again, when, and under which key: against a real server that refuses and breaks off."""

import asyncio
import email.utils
import io
import json
import random
import time
from pathlib import Path

import pytest
from oddity_client import AsyncClient, Busy, Client, Conflict, NotAllowed, NotOddity, Refused, Retries, Unreachable
from oddity_client.uploads import NewImage

from tests.app.client.conftest import AT_ONCE, Script, Told, scripted

ADDED = '{"items": [], "created": 1, "updated": 0, "duplicate": 0, "refused": 0, "sequence": 3}'
BUSY = Told(503, '{"code": "busy", "detail": "Busy."}', {"Retry-After": "0"})
LIMITED = Told(429, '{"code": "too_many", "detail": "Slower."}', {"Retry-After": "0"})
RUNNING = Told(409, '{"code": "idempotency_running", "detail": "Still running."}')
BROKEN = Told(breaks_off=True)
GONE = Told(502, "<html>Bad Gateway</html>")  # what a proxy says when its server ends in the middle
HUNG = Told(504, "<html>Gateway Time-out</html>")
FINE = Told(body=ADDED)


def first(*answers: Told, then: Told = FINE) -> Script:
    return lambda number: answers[number - 1] if number <= len(answers) else then


@pytest.mark.parametrize(
    "refusals", [(BUSY, LIMITED), (BROKEN,), (RUNNING,), (GONE, HUNG), (BROKEN, BUSY, RUNNING, LIMITED)]
)
def test_a_write_is_sent_again_whole_and_under_one_key(refusals: tuple[Told, ...], tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(b"from the disk")
    images = [path, NewImage(b"from memory", "b.png", id="b"), io.BytesIO(b"from a file")]
    with scripted(first(*refusals)) as (url, seen), Client(url, retries=AT_ONCE) as client:
        assert client.collection("parts").add(images, role="normal").created == 1
    assert len(seen) == len(refusals) + 1
    assert len({one.headers["idempotency-key"] for one in seen}) == 1
    for one in seen:
        assert one.line == "POST /v1/collections/parts/images HTTP/1.1"
        for told in (b"from the disk", b"from memory", b"from a file", b'name="role"', b'"id": "b"', b"part.png"):
            assert told in one.body


def test_the_same_with_an_asynchronous_client(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(b"from the disk")

    async def add(url: str) -> int:
        async with AsyncClient(url, retries=AT_ONCE) as client:
            return (await client.collection("parts").add([path])).created

    with scripted(first(BUSY, BROKEN, RUNNING)) as (url, seen):
        assert asyncio.run(add(url)) == 1
    assert len(seen) == 4
    assert len({one.headers["idempotency-key"] for one in seen}) == 1
    assert all(b"from the disk" in one.body for one in seen)


def test_two_writes_have_two_keys() -> None:
    with scripted(first()) as (url, seen), Client(url) as client:
        client.collection("parts").add([b"a"])
        client.collection("parts").add([b"a"])
        client.collection("parts").add([b"a"], key="mine")
    keys = [one.headers["idempotency-key"] for one in seen]
    assert len(set(keys)) == 3 and keys[2] == "mine"


def test_tries_end_with_what_came_last() -> None:
    with scripted(lambda _: BUSY) as (url, seen), Client(url, retries=AT_ONCE) as client:
        with pytest.raises(Busy, match="Busy"):
            client.alive()
        assert len(seen) == AT_ONCE.tries
    with scripted(lambda _: BROKEN) as (url, seen), Client(url, retries=AT_ONCE) as client:
        with pytest.raises(Unreachable, match="No answer from http"):
            client.alive()
        assert len(seen) == AT_ONCE.tries
    with scripted(lambda _: GONE) as (url, seen), Client(url, retries=AT_ONCE) as client:
        with pytest.raises(Unreachable, match="a proxy before it says 502"):
            client.alive()
        assert len(seen) == AT_ONCE.tries
    with Client(url, retries=AT_ONCE) as client, pytest.raises(Unreachable):
        client.alive()  # nobody listens there any more


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (Told(409, '{"code": "conflict", "detail": "No."}'), Conflict),
        (Told(401, '{"code": "key_missing", "detail": "A key."}'), NotAllowed),
        (Told(500, '{"code": "internal", "detail": "Ours."}'), Refused),
        (Told(200, "hello"), NotOddity),
        (Told(404, "<html>"), NotOddity),
    ],
)
def test_other_answers_are_final(told: Told, kind: type[Exception]) -> None:
    with scripted(lambda _: told) as (url, seen), Client(url, retries=AT_ONCE) as client:
        with pytest.raises(kind) as raised:
            client.collection("parts").get()
        assert len(seen) == 1
    if isinstance(raised.value, Refused):
        assert raised.value.status == told.status
        assert raised.value.code in told.body


def test_retry_after_is_never_undercut_and_too_long_is_not_waited_for() -> None:
    with (
        scripted(first(Told(503, "{}", {"Retry-After": "1"}), then=Told())) as (url, _),
        Client(url, retries=AT_ONCE) as client,
    ):
        started = time.monotonic()
        client.alive()
        assert time.monotonic() - started >= 1.0
    with scripted(lambda _: Told(503, "{}", {"Retry-After": "3600"})) as (url, seen), Client(url) as client:
        with pytest.raises(Busy):
            client.alive()
        assert len(seen) == 1


def test_pauses_double_up_to_a_limit_less_some_chance() -> None:
    retries = Retries(tries=8, first_pause_s=1.0, longest_pause_s=10.0, chance=random.Random(1))
    pauses = [retries.pause_s(attempt, None) for attempt in range(1, 8)]
    for pause, longest in zip(pauses, (1, 2, 4, 8, 10, 10, 10), strict=True):
        assert pause is not None and longest / 2 <= pause <= longest
    assert len(set(pauses)) == 7
    assert retries.pause_s(8, None) is None
    assert retries.pause_s(1, 7.0) == 7.0
    assert retries.pause_s(1, 10.5) is None


def test_retry_after_may_be_a_date() -> None:
    past = email.utils.formatdate(time.time() - 100, usegmt=True)
    far = email.utils.formatdate(time.time() + 3600, usegmt=True)
    with (
        scripted(first(Told(503, "{}", {"Retry-After": past}), then=Told())) as (url, seen),
        Client(url, retries=AT_ONCE) as client,
    ):
        client.alive()
        assert len(seen) == 2
    with (
        scripted(lambda _: Told(503, "{}", {"Retry-After": far})) as (url, seen),
        Client(url, retries=AT_ONCE) as client,
    ):
        with pytest.raises(Busy):
            client.alive()
        assert len(seen) == 1


def test_a_download_that_breaks_off_begins_again_and_takes_its_name_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "parts.tar"
    cut = Told(body="half", announced=100)
    with (
        scripted(first(cut, cut, then=Told(body="the whole file"))) as (url, seen),
        Client(url, retries=AT_ONCE) as client,
    ):
        assert client.collection("parts").download_snapshot("a" * 32, path) == path
        assert len(seen) == 3
    assert path.read_text() == "the whole file"
    assert [one.name for one in tmp_path.iterdir()] == ["parts.tar"]


def test_listening_goes_on_after_a_broken_connection() -> None:
    def told(state: str) -> str:
        job = {"id": "a" * 32, "kind": "fit", "collection": "c", "state": state, "parameters": {}, "attempts": 1}
        job |= {"progress": {"stage": "", "done": 0, "total": None, "rate": None, "remaining_s": None}}
        job |= dict.fromkeys(("result", "problem", "started_at", "finished_at"))
        return json.dumps(job | {"cancel_requested": False, "created_at": "2026-01-01T00:00:00.000Z"})

    def script(number: int) -> Told:
        if number == 2:
            return Told(body=told("running"))  # a look, since the stream ended too early
        state = "queued" if number == 1 else "succeeded"
        event = f"event: progress\ndata: {told(state)}\n\n: still here\n\n"
        return Told(body=event, announced=len(event) + 100 if number == 1 else None)

    with scripted(script) as (url, seen), Client(url, retries=AT_ONCE) as client:
        assert [one.state for one in client.events("a" * 32)] == ["queued", "succeeded"]
    assert [one.line.split()[1].rpartition("/")[2] for one in seen] == ["events", "a" * 32, "events"]


def test_the_key_goes_with_every_request_and_names_are_quoted() -> None:
    with scripted(lambda _: Told(204, "")) as (url, seen), Client(url + "/below", api_key="secret") as client:
        client.collection("parts").delete_image("a b?c#d")
        client.collection("parts").delete()
    assert {one.headers["authorization"] for one in seen} == {"Bearer secret"}
    assert seen[0].line.startswith("DELETE /below/v1/collections/parts/images/a%20b%3Fc%23d ")


def test_a_large_file_is_sent_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(bytes(4 * 2**20))
    largest = 0
    plain = Path.open

    def watched(self: Path, *arguments: object) -> object:
        file = plain(self, *arguments)  # type: ignore[arg-type]
        read = file.read

        def counted(size: int = -1) -> bytes:
            nonlocal largest
            piece = read(size)
            largest = max(largest, len(piece))
            return piece

        class Watched:
            def __getattr__(self, name: str) -> object:
                return counted if name == "read" else getattr(file, name)

            def __enter__(self) -> object:
                return self

            def __exit__(self, *told: object) -> None:
                file.close()

        return Watched()

    monkeypatch.setattr(Path, "open", watched)
    with scripted(lambda _: Told(500, "{}")) as (url, seen), Client(url) as client, pytest.raises(Refused):
        client.collection("parts").import_images(path)
    assert len(seen[0].body) > 4 * 2**20
    assert 0 < largest <= 2**17
