"""What the service promises of its record, on each database it runs on."""

import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from PIL import Image
from sqlalchemy import delete, event, func, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.access.caller import ANYBODY
from app.collections.repository import add as add_collection
from app.core import Core
from app.db.engine import Database
from app.db.tables import AccessRow, Base, CollectionRow, ImageRow, JobRow, VectorRow
from app.errors import Conflict, NotFound, ServiceError
from app.idempotency import Answer, Request
from app.jobs import service as jobs
from app.jobs.context import JobContext
from app.jobs.runner import Runner
from app.shelf import Shelf
from tests.app.working import finished
from tests.conftest import add, png
from tests.record.conftest import OpenCore, is_postgresql

C = "/v1/collections/c"
WIDEST = "\U0001d54f"  # a letter of four bytes, beyond the first 65,536 characters


def post(client: TestClient, images: dict[str, bytes], collection: str = C, **more: Any) -> Any:
    """POST images under the given ids to a collection that is there; the answer."""
    return client.post(
        f"{collection}/images",
        files=[("files", (f"{name}.png", data)) for name, data in images.items()],
        data={"items": json.dumps([{"id": name} for name in images]), **more.pop("data", {})},
        **more,
    )


def ids(client: TestClient, **parameters: Any) -> list[str]:
    return [one["id"] for one in client.get(f"{C}/images", params=parameters).json()["images"]]


def found(client: TestClient, image: bytes, k: int = 1) -> list[str]:
    """Ids of what is nearest to an image."""
    answer = client.post(f"{C}/query", files=[("files", ("q.png", image))], params={"k": k})
    return [one["id"] for one in answer.json()["results"][0]]


def row_counts(database: Database) -> dict[str, int]:
    with database.read() as session:
        return {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }


# --- the tables ---


def test_the_migrations_make_what_the_code_expects(unmigrated_url: str) -> None:
    database = Database(unmigrated_url)
    database.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_servers_that_start_together_migrate_once(unmigrated_url: str) -> None:
    databases = [Database(unmigrated_url) for _ in range(6)]
    together = threading.Barrier(len(databases))

    def migrate(database: Database) -> None:
        database.check()
        together.wait(30)
        database.migrate()

    with ThreadPoolExecutor(len(databases)) as pool:
        for done in [pool.submit(migrate, one) for one in databases]:
            done.result(60)
    assert row_counts(databases[0])["collections"] == 0
    for one in databases:
        one.close()


def test_commits_are_durable_whatever_the_server_is_set_to(database: Database, database_url: str) -> None:
    if is_postgresql(database_url):
        with database.write() as session:
            name = session.scalar(text("SELECT current_database()"))
            session.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
        with database.engine.connect() as plain:
            plain.connection.driver_connection.execute("RESET synchronous_commit")  # type: ignore[union-attr]
        database.close()  # new connections from here on
        with database.write() as session:
            assert session.scalar(text("SHOW synchronous_commit")) == "on"
    else:
        with database.write() as session:
            assert session.scalar(text("PRAGMA synchronous")) == 2
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"


def test_a_reading_session_sees_one_state_and_a_look_sees_the_newest(core: Core, client: TestClient) -> None:
    client.put(C)
    newest = select(CollectionRow.sequence).where(CollectionRow.name == "c")
    with core.database.read() as session:
        before = session.scalar(newest)
        client.patch(C, json={"neighbours": 5}).raise_for_status()
        assert core.database.value(newest) == before + 1, "the write is there ..."
        session.expire_all()
        assert session.scalar(newest) == before, "... and this session is still in the state it began with"


# --- collections ---


def test_collections_are_listed_in_order_of_code_points(client: TestClient) -> None:
    names = ["b", "B", "a", "_", "ä", "é", "z", "Ω", "日本", "1.2-3", WIDEST * 128]
    for name in names:
        assert client.put(f"/v1/collections/{name}").status_code == 201
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/v1/collections", params={"cursor": cursor, "limit": 3}).json()
        seen += [one["name"] for one in page["collections"]]
        cursor = page["next"]
    assert seen == sorted(names)


def test_of_two_changes_with_the_same_tag_one_wins(client: TestClient, other: TestClient) -> None:
    client.put(C)
    with ThreadPoolExecutor(2) as pool:
        for turn in range(8):
            tag = client.get(C).headers["etag"]
            together = threading.Barrier(2)

            def change(server: TestClient, neighbours: int, tag: str = tag, both: threading.Barrier = together) -> Any:
                both.wait(30)
                return server.patch(C, json={"neighbours": neighbours}, headers={"If-Match": tag})

            wanted = (10 + 2 * turn, 11 + 2 * turn)
            answers = list(pool.map(change, (client, other), wanted))
            assert sorted(one.status_code for one in answers) == [200, 412], [one.text for one in answers]
            winner = next(one for one in answers if one.status_code == 200)
            assert client.get(C).json()["neighbours"] == winner.json()["neighbours"]


def test_no_change_of_settings_is_lost(client: TestClient, other: TestClient) -> None:
    """Without a tag both may succeed, or one is told to repeat; what was answered with 200 is there in the end."""
    client.put(C)
    with ThreadPoolExecutor(2) as pool:
        for turn in range(8):
            together = threading.Barrier(2)

            def change(server: TestClient, given: dict[str, Any], both: threading.Barrier = together) -> Any:
                both.wait(30)
                return server.patch(C, json=given), given

            changes = ({"neighbours": 1 + turn}, {"false_alarm_rate": 0.01 * (1 + turn)})
            for answer, given in pool.map(change, (client, other), changes):
                assert answer.status_code in (200, 409), answer.text
                if answer.status_code == 200:
                    assert other.get(C).json().items() >= given.items()


def test_a_collection_put_at_the_same_moment_is_made_once(client: TestClient, other: TestClient) -> None:
    with ThreadPoolExecutor(4) as pool:
        for turn in range(5):
            together = threading.Barrier(4)

            def put(server: TestClient, path: str = f"{C}{turn}", all_: threading.Barrier = together) -> Any:
                all_.wait(30)
                return server.put(path)

            answers = list(pool.map(put, (client, other, client, other)))
            assert sorted(one.status_code for one in answers) == [200, 200, 200, 201], [one.text for one in answers]


def test_a_deleted_collection_leaves_nothing_and_a_new_one_of_its_name_is_another(
    client: TestClient, other: TestClient, database: Database
) -> None:
    empty = row_counts(database)
    add(client, "c", {"a": png(1), "b": png(2)})
    client.put(f"{C}/groups/g", json={"ids": ["a", "b"]}).raise_for_status()
    client.delete(f"{C}/images/b").raise_for_status()
    client.post(f"{C}/feedback", json={"id": "a", "kind": "confirmed"}).raise_for_status()
    tag = client.get(C).headers["etag"]
    assert ids(other) == ["a"]
    assert found(other, png(1)) == ["a"]
    assert client.delete(C).status_code == 204
    left = row_counts(database)
    left.pop("runtimes"), empty.pop("runtimes")  # shared by all collections
    assert left == empty
    add(client, "c", {"z": png(3)})
    assert ids(other) == ["z"], "the other server knows the old collection, at the same number of changes or not"
    assert found(other, png(1)) == ["z"]
    assert other.patch(C, json={"k": 3}, headers={"If-Match": tag}).status_code == 412


# --- images ---


def test_images_are_kept_with_all_that_was_said_of_them(client: TestClient, other: TestClient) -> None:
    client.put(C)
    told = {
        "id": f"Teil ä {WIDEST} 日本 'quoted' \"%_\\",
        "role": "anomalous",
        "label": "Kratzer",
        "group": "Läufer_1",
        "metadata": {"ключ": [1, 2.5, None, True, {"深": "\u0000\U0001f600"}], "big": 2**60, "tiny": 5e-324},
    }
    data = png(1)
    client.post(
        f"{C}/images", files=[("files", ("größe.png", data))], data={"items": json.dumps([told])}
    ).raise_for_status()
    listed = other.get(f"{C}/images").json()["images"]
    assert len(listed) == 1
    told["metadata"]["filename"] = "größe.png"  # type: ignore[index]
    assert {name: listed[0][name] for name in told} == told
    assert (listed[0]["width"], listed[0]["height"], listed[0]["bytes"]) == (32, 32, len(data))
    assert other.get(f"{C}/images/{told['id']}/content").content == data
    by_filter = {"must": [{"key": "big", "match": 2**60}]}
    assert ids(other, filter=json.dumps(by_filter)) == [told["id"]]
    assert ids(other, label="Kratzer", group="Läufer_1", role="anomalous") == [told["id"]]
    assert ids(other, label="kratzer") == []


def test_no_text_or_number_is_too_much_for_the_record(client: TestClient) -> None:
    """Taken or refused, but never an error of the database; and a repeated key is found again whatever the path."""
    path = f"/v1/collections/{WIDEST * 128}"
    add(client, WIDEST * 128, {"a": png(1)})
    items = [
        '[{"id": "a\\u0000b"}]',
        '[{"id": "\\ud800"}]',
        '[{"metadata": {"x": NaN}}]',
        '[{"metadata": {"x": 1e999}}]',
        '[{"metadata": {"\\ud800": "\\udfff"}}]',
        '[{"metadata": {"x": "\\u0000"}}]',
        json.dumps([{"id": WIDEST * 256, "label": WIDEST * 128}]),
    ]
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/images", {"data": {"items": one}, "files": [("files", ("x.png", png(2)))]}) for one in items
    ]
    requests += [
        ("PATCH", "/images/a", {"content": r'{"metadata": {"deep": "\u0000\ud800"}}'}),
        ("GET", "/images?cursor=9999999999999999999", {}),
        ("GET", "/images?cursor=9223372036854775807", {}),
        ("GET", "/images?after=9223372036854775808", {}),
        ("GET", "/images/%00", {}),
        ("GET", "/images?label=%00", {}),
        ("GET", '/images?filter={"must":[{"key":"x","match":"%00"}]}', {}),
        ("POST", "/images/delete", {"content": r'{"ids": ["\ud800"]}'}),
        ("POST", "/feedback", {"content": r'{"id": "a", "kind": "confirmed", "note": "nothing \u0000 here"}'}),
        ("POST", "/feedback", {"content": r'{"id": "a", "kind": "confirmed", "note": "half a \ud800 pair"}'}),
        ("PUT", "/groups/g", {"content": r'{"ids": ["a"], "metadata": {"x": "\u0000"}}'}),
        ("POST", "/calibrate", {"content": '{"k": 2}'}),
    ]
    for number, (method, tail, given) in enumerate(requests):
        headers = {"Idempotency-Key": f"{number:0255}"} if method == "POST" else {}
        if "content" in given:
            headers["Content-Type"] = "application/json"
        first, again = (client.request(method, path + tail, headers=headers, **given) for _ in range(2))
        assert max(first.status_code, again.status_code) < 500, (method, tail, given, first.text, again.text)
        if method == "POST" and first.status_code < 300 and "delete" not in tail:
            assert again.headers["idempotent-replayed"] == "true", (tail, given)


def test_a_write_that_fails_in_the_middle_leaves_nothing(client: TestClient, other: TestClient) -> None:
    add(client, "c", {"a": png(1)})
    before = client.get(C).json()
    engine = client.app.state.core.database.engine  # type: ignore[attr-defined]
    spoilt: list[str] = []

    def spoil(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("INSERT INTO vectors"):
            spoilt.append(statement)
            raise OperationalError(statement, {}, Exception("the disk is full"))

    event.listen(engine, "before_cursor_execute", spoil)
    answer = post(client, {"b": png(2), "c": png(3)}, headers={"Idempotency-Key": "one"})
    event.remove(engine, "before_cursor_execute", spoil)
    assert spoilt, "it failed after the images were written"
    assert (answer.status_code, answer.json()["code"]) == (503, "record_unavailable")
    assert "retry-after" in answer.headers
    for server in (client, other):
        assert ids(server) == ["a"]
        assert server.get(C).json() == before
        assert found(server, png(2), k=3) == ["a"]
    again = post(client, {"b": png(2), "c": png(3)}, headers={"Idempotency-Key": "one"})
    assert again.status_code == 201, "the key of a write that did not happen is free"
    assert again.json()["sequence"] == before["sequence"] + 1
    assert ids(other) == ["a", "b", "c"]


def test_pixels_are_hashed_by_a_search_for_duplicates(client: TestClient, other: TestClient) -> None:
    """SQL of its own: pairs of sizes that several files have, and nothing as a hash."""
    client.put(C)
    packed = io.BytesIO()
    Image.open(io.BytesIO(png(1))).save(packed, "PNG", compress_level=0)
    post(client, {"a": png(1), "a packed": packed.getvalue(), "b": png(2), "alone": png(3, 40, 50)})
    assert {one["pixel_sha256"] for one in client.get(f"{C}/images").json()["images"]} == {None}
    result = finished(client, f"{C}/duplicates", {"levels": ["exact_pixels"]})
    assert [{one["id"] for one in found["images"]} for found in result["groups"]] == [{"a", "a packed"}]
    hashes = {one["id"]: one["pixel_sha256"] for one in other.get(f"{C}/images").json()["images"]}
    assert hashes["a"] == hashes["a packed"] is not None and hashes["b"] not in (None, hashes["a"])
    assert hashes["alone"] is None


def test_an_image_is_replaced_with_its_vector(client: TestClient, other: TestClient, database: Database) -> None:
    add(client, "c", {"a": png(1), "b": png(2)})
    assert found(other, png(1)) == ["a"]
    answer = post(client, {"a": png(2), "b": png(1), "n": png(3)}).json()
    assert [one["status"] for one in answer["items"]] == ["updated", "updated", "created"]
    assert found(other, png(1)) == found(client, png(1)) == ["b"]
    assert found(other, png(2)) == ["a"]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(VectorRow)) == 3


def test_an_id_twice_in_one_request_is_one_image_with_the_last_bytes(client: TestClient, other: TestClient) -> None:
    client.put(C)
    answer = client.post(
        f"{C}/images",
        files=[("files", ("1.png", png(1))), ("files", ("2.png", png(2))), ("files", ("2.png", png(2)))],
        data={"items": json.dumps([{"id": "a"}] * 3)},
    )
    assert [one["status"] for one in answer.json()["items"]] == ["created", "updated", "duplicate"]
    assert ids(other) == ["a"]
    assert other.get(f"{C}/images/a/content").content == png(2)
    exact = other.post(f"{C}/query", files=[("files", ("q.png", png(2)))], params={"k": 1}).json()["results"][0][0]
    assert exact["distance"] < 1e-6


# --- following ---


def test_a_server_follows_every_kind_of_change_of_another(client: TestClient, other: TestClient) -> None:
    def score(**parameters: Any) -> Any:
        answer = other.post(f"{C}/anomaly", files=[("files", ("q.png", png(7)))], params=parameters)
        return answer.json()

    add(client, "c", {f"i{n}": png(n) for n in range(4)})
    assert ids(other) == ["i0", "i1", "i2", "i3"]
    assert score()["calibration"]["n"] == 4

    client.patch(f"{C}/images/i0", json={"role": "anomalous"}).raise_for_status()
    assert score()["calibration"]["n"] == 3
    assert score()["results"][0]["known_anomaly"]["id"] == "i0"

    client.patch(f"{C}/images/i1", json={"metadata": {"line": 3}}).raise_for_status()
    line = json.dumps({"must": [{"key": "line", "match": 3}]})
    assert [
        one["id"]
        for one in other.post(f"{C}/query", json={"id": "i2", "filter": json.loads(line)}).json()["results"][0]
    ] == ["i1"]

    client.put(f"{C}/groups/g", json={"ids": ["i1", "i2", "i3"]}).raise_for_status()
    client.put(f"{C}/groups/h", json={"ids": ["i3", "i2"]}).raise_for_status()
    assert other.get(f"{C}/groups/g").json()["members"] == ["i1", "i2", "i3"]
    client.delete(f"{C}/images/i2").raise_for_status()
    assert other.get(f"{C}/groups/g").json()["members"] == ["i1", "i3"]
    assert other.get(f"{C}/groups/h").json()["members"] == ["i3"]
    client.delete(f"{C}/groups/g").raise_for_status()
    assert [one["name"] for one in other.get(f"{C}/groups").json()["groups"]] == ["h"]
    client.put(f"{C}/groups/g", json={"ids": ["i3", "i1"], "metadata": {"n": 2}}).raise_for_status()
    assert other.get(f"{C}/groups/g").json()["members"] == ["i3", "i1"]

    client.patch(C, json={"false_alarm_rate": 0.3}).raise_for_status()
    assert score()["calibration"]["requested"] == 0.3
    client.patch(C, json={"metric": "l2"}).raise_for_status()
    assert score()["metric"] == "l2"

    client.post(f"{C}/images/delete", json={"role": "normal"}).raise_for_status()
    assert ids(other) == ["i0"]
    assert found(other, png(1), k=4) == ["i0"]
    client.delete(C).raise_for_status()
    assert other.get(f"{C}/images").status_code == 404


def test_writers_of_one_collection_lose_nothing_and_followers_skip_nothing(
    client: TestClient, other: TestClient, open_another: OpenCore
) -> None:
    """Eight threads write through two servers; a third follows all the while and ends with exactly the record.

    Each POST brings a pair, each deletion takes one, so whoever sees an odd number of images has seen half a write.
    """
    client.put(C)
    third = open_another()
    numbers: list[int] = []
    kept: dict[str, bytes] = {}
    failures: list[str] = []
    seen: list[int] = []
    ended = threading.Event()
    said = threading.Lock()

    def write(worker: int) -> None:
        server = (client, other)[worker % 2]
        for turn in range(5):
            pair = {f"w{worker}-{turn}-{half}": png(1000 * worker + 2 * turn + half) for half in (0, 1)}
            answers = [post(server, pair)]
            if turn == 1:
                answers.append(server.post(f"{C}/images/delete", json={"ids": sorted(pair)}))
            if turn == 2:
                answers.append(server.patch(f"{C}/images/{min(pair)}", json={"metadata": {"worker": worker}}))
            if turn == 3:
                swapped = dict(zip(pair, reversed(pair.values()), strict=True))
                answers.append(post(server, swapped))
                pair = swapped
            if turn == 4:
                answers.append(server.put(f"{C}/groups/g{worker}", json={"ids": sorted(pair)}))
            with said:
                failures.extend(one.text for one in answers if one.status_code not in (200, 201))
                numbers.extend(one.json()["sequence"] for one in answers if one.status_code in (200, 201))
                if turn != 1:
                    kept.update(pair)

    def follow() -> None:
        while not ended.is_set():
            state = third.shelf.get("c")
            with state.lock.read():
                seen.append(state.sequence)
                if len(state.entries) % 2:
                    failures.append(f"{len(state.entries)} images at {state.sequence}")
                if len(state.dn2.bank) != len(state.entries):
                    failures.append(f"the parts of the state differ at {state.sequence}")

    with ThreadPoolExecutor(9) as pool:
        following = pool.submit(follow)
        for done in [pool.submit(write, worker) for worker in range(8)]:
            done.result(120)
        ended.set()
        following.result(30)
    assert failures == []
    assert sorted(numbers) == list(range(1, 8 * 9 + 1)), "each write has a number of its own and none is left out"
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "it followed while the others wrote"

    state, afresh = third.shelf.get("c"), Shelf(third.database).get("c")
    assert state.sequence == afresh.sequence == max(numbers)
    assert state.entries == afresh.entries
    assert state.groups == afresh.groups
    assert len(state.groups) == 8
    assert {one.image_id for one in state.entries.values()} == set(kept)
    pks = sorted(state.entries)
    assert (state.vectors(pks) == afresh.vectors(pks)).all()
    for name in ("w0-0-0", "w5-3-1"):
        assert client.get(f"{C}/images/{name}/content").content == kept[name]
        assert found(other, kept[name]) == [name]
    left, right = state.dn2.calibration(2), afresh.dn2.calibration(2)
    assert dict(zip(left.ids.tolist(), left.scores.tolist(), strict=True)) == dict(
        zip(right.ids.tolist(), right.scores.tolist(), strict=True)
    )


def test_a_read_waits_for_the_change_it_was_told_of(client: TestClient, other: TestClient) -> None:
    add(client, "c", {"a": png(1), "b": png(2), "c": png(3)})
    now = client.get(C).json()["sequence"]
    reads: list[Callable[[], Any]] = [
        lambda: other.get(C, params={"after": now + 1}),
        lambda: other.get(f"{C}/images", params={"after": now + 1}),
        lambda: other.post(f"{C}/query", json={"id": "a", "after": now + 1}),
        lambda: other.post(f"{C}/anomaly", files=[("files", ("q.png", png(9)))], params={"after": now + 1}),
        lambda: other.post(f"{C}/groups/anomaly", json={"ids": ["a"], "after": now + 1}),
    ]
    with ThreadPoolExecutor(len(reads)) as pool:
        waiting = [pool.submit(one) for one in reads]
        started = threading.Event()
        started.wait(0.3)
        assert not any(one.done() for one in waiting), "there is no such change yet"
        assert other.get(C).json()["sequence"] == now, "who does not ask does not wait"
        assert post(client, {"d": png(4)}).json()["sequence"] == now + 1
        answers = [one.result(30) for one in waiting]
    assert [one.status_code for one in answers] == [200] * len(reads), [one.text for one in answers]
    assert answers[0].json()["images"] == 4
    assert [one["id"] for one in answers[1].json()["images"]] == ["a", "b", "c", "d"]
    assert [one.json()["sequence"] for one in answers[2:]] == [now + 1] * 3


def test_waiting_for_a_change_that_does_not_come_ends(serve: Any) -> None:
    with serve(follow_wait_s=0.1) as client:
        add(client, "c", {"a": png(1)})
        answer = client.get(f"{C}/images", params={"after": 100})
        assert (answer.status_code, answer.json()["code"]) == (503, "sequence_not_reached")
        assert answer.headers["retry-after"] == "1"
        assert client.get(f"{C}/images", params={"after": -1}).status_code == 422
        assert client.get(f"{C}/images", params={"after": 1}).status_code == 200


def test_every_write_answers_its_number(client: TestClient) -> None:
    client.put(C)
    numbers = [
        client.get(C).json()["sequence"],
        post(client, {"a": png(1), "b": png(2), "d": png(4)}).json()["sequence"],
        client.patch(f"{C}/images/a", json={"label": "x"}).json()["sequence"],
        client.put(f"{C}/groups/g", json={"ids": ["a"]}).json()["sequence"],
        int(client.delete(f"{C}/groups/g").headers["oddity-sequence"]),
        int(client.delete(f"{C}/images/b").headers["oddity-sequence"]),
        client.post(f"{C}/images/delete", json={"ids": ["a"]}).json()["sequence"],
        client.patch(C, json={"k": 3}).json()["sequence"],
        (given := client.post(f"{C}/feedback", json={"id": "d", "kind": "missed"}).json())["sequence"],
        client.delete(f"{C}/feedback/{given['id']}").json()["sequence"],
    ]
    assert numbers == list(range(10))


# --- keys and jobs ---


def test_a_repeat_under_one_key_is_recognised_by_every_server(client: TestClient, other: TestClient) -> None:
    client.put(C)
    key = {"Idempotency-Key": "one"}
    first = post(client, {"a": png(1)}, headers=key)
    again = post(other, {"a": png(1)}, headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert post(other, {"a": png(2)}, headers=key).json()["code"] == "idempotency_key_reused"
    assert client.get(C).json()["sequence"] == 1


def test_one_key_at_the_same_moment_on_two_servers_is_one_write(client: TestClient, other: TestClient) -> None:
    client.put(C)
    with ThreadPoolExecutor(2) as pool:
        for turn in range(6):
            together = threading.Barrier(2)

            def send(server: TestClient, turn: int = turn, both: threading.Barrier = together) -> Any:
                both.wait(30)
                return post(server, {f"i{turn}": png(turn)}, headers={"Idempotency-Key": f"key {turn}"})

            answers = list(pool.map(send, (client, other)))
            assert {one.status_code for one in answers} <= {201, 409}, [one.text for one in answers]
            bodies = [one.json() for one in answers if one.status_code == 201]
            assert bodies
            assert all(one == bodies[0] for one in bodies)
            assert client.get(C).json()["sequence"] == turn + 1


def test_one_key_at_the_same_moment_on_two_servers_is_one_job(open_another: OpenCore) -> None:
    """What one has written and not committed yet cannot be seen by the other."""
    one, other = open_another(), open_another()
    request = Request("POST /x", "k", "0" * 64)
    faults: list[Exception] = []

    def late() -> None:
        try:
            jobs.submit(other, "work", None, {}, request)
        except Conflict as error:
            faults.append(error)

    thread = threading.Thread(target=late)

    def begin_late(session: Session, job_id: str) -> None:
        one.idempotency.remember(session, request, Answer(202, {"id": job_id}))
        thread.start()
        thread.join(0.5)  # until it waits for this transaction

    jobs.submit(one, "work", None, {}, None, also=begin_late)
    thread.join()
    assert [getattr(fault, "code", "") for fault in faults] == ["idempotency_running"]
    assert len(jobs.list_jobs(one, ANYBODY, None, None, None, "", 10)[0]) == 1


def test_a_job_for_a_collection_that_is_being_deleted_is_refused(open_another: OpenCore, database: Database) -> None:
    other = open_another()
    with database.write() as session:
        add_collection(session, "c", {}, other.clock())
    faults: list[Exception] = []

    def late() -> None:
        try:
            jobs.submit(other, "work", "c", {})
        except NotFound as error:
            faults.append(error)

    thread = threading.Thread(target=late)
    with database.write() as session:
        session.execute(delete(CollectionRow))
        thread.start()
        thread.join(0.5)
    thread.join()
    assert [getattr(fault, "code", "") for fault in faults] == ["collection_unknown"]


def test_each_job_is_done_by_one_of_the_workers(open_another: OpenCore) -> None:
    cores = [open_another(), open_another()]
    done: list[str] = []
    said = threading.Lock()

    def work(_core: Core, context: JobContext) -> dict[str, Any]:
        with said:
            done.append(context.id)
        return {"by": "one"}

    submitted = [jobs.submit(cores[n % 2], "work", None, {})[0]["id"] for n in range(12)]
    runners = [Runner(cores[n % 2], {"work": work}) for n in range(4)]

    def drain(runner: Runner) -> None:
        while runner.run_one():
            pass

    with ThreadPoolExecutor(4) as pool:
        for drained in [pool.submit(drain, one) for one in runners]:
            drained.result(60)
    assert sorted(done) == sorted(submitted)
    assert {jobs.get_job(cores[0], one)["state"] for one in submitted} == {"succeeded"}


def test_a_write_that_waits_too_long_for_another_is_told_to_come_back(serve: Any, database: Database) -> None:
    with serve(database_busy_s=0.2) as client:
        add(client, "c", {"a": png(1)})
        with database.write() as session:
            session.execute(text("UPDATE collections SET updated_at = updated_at"))
            answer = post(client, {"b": png(2)})
            assert (answer.status_code, answer.json()["code"]) == (503, "record_unavailable")
            assert found(client, png(1)) == ["a"], "reading goes on"
        assert post(client, {"b": png(2)}).status_code == 201


def test_pks_are_never_given_twice(client: TestClient, database: Database) -> None:
    """A follower that missed the change in between would take the new image for the old one."""
    add(client, "c", {"a": png(1)})
    with database.read() as session:
        old = session.scalar(select(ImageRow.id))
    client.delete(f"{C}/images/a").raise_for_status()
    post(client, {"b": png(2)})
    with database.read() as session:
        assert session.scalar(select(ImageRow.id)) != old


# --- two at the same moment ---


def caught(work: Callable[[], Any]) -> Exception | None:
    try:
        work()
    except ServiceError as error:
        return error
    return None


def test_a_job_that_ends_while_it_is_cancelled_has_ended(core: Core) -> None:
    job, _ = jobs.submit(core, "calibrate", None, {})
    with ThreadPoolExecutor(1) as threads:
        with core.database.write() as session:
            session.execute(update(JobRow).values(state="succeeded"))
            late = threads.submit(caught, lambda: jobs.cancel(core, job["id"]))
            threading.Event().wait(0.3)
        error = late.result(60)
    assert isinstance(error, Conflict) and error.code == "job_ended"
    assert jobs.get_job(core, job["id"])["state"] == "succeeded"


# --- what no text of the record can hold ---


def test_the_character_zero_is_refused_wherever_a_text_is_looked_for(client: TestClient) -> None:
    add(client, "c", {"a": png(1), "b": png(2)})
    assert client.post("/v1/keys", json={"name": "k", "scopes": ["read"]}).status_code == 201
    for path in (
        "/v1/jobs?kind=%00", "/v1/collections?cursor=%00", f"{C}/drift?scorer=%00", f"{C}/scores?scorer=%00",
        "/v1/keys/%00",
    ):  # fmt: skip
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), path
    for path in (f"{C}/anomaly", f"{C}/groups/anomaly", f"{C}/explain"):
        answer = client.post(path, json={"ids": ["a"], "scorer": "\0"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), path


def test_a_number_is_found_and_a_look_that_fails_fails_as_any_other(core: Core) -> None:
    assert core.database.row("SELECT version FROM access") == (core.database.value(select(AccessRow.version)),)
    with pytest.raises(DBAPIError):
        core.database.row("SELECT version FROM nowhere")
