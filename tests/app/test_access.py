"""Keys: made, used, limited, rotated, revoked; what those without one learn, and what is written down."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.access import keyring as keyring_module
from app.access.audit import Audit
from app.access.caller import Caller
from app.access.keyring import LOOK_EVERY_S, Key, Keyring
from app.access.meter import Meter
from app.access.rules import PUBLIC
from app.access.tokens import digest, id_of, new_id, new_token
from app.db.engine import Database
from app.db.tables import ApiKeyRow, KeyUsageRow
from app.errors import TooMany
from app.jobs import endpoints, service
from app.keys.schemas import KeyParameters
from app.keys.service import create_key, revoke_key
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.keyholders import holder, token_of
from tests.app.working import core_of
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

_names = (f"key-{number}" for number in count())
IMAGE = {"headers": {"content-type": "image/png"}, "content": png(1)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that asks everybody for a key, with collections `a` and `b`."""
    settings = Settings(
        data=tmp_path_factory.mktemp("guarded"), weights="stand-in", image_size=32, threads=1, access="keys"
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        admin = holder(client, "setup", "admin")
        for name in ("a", "b"):
            add(admin, name, {f"{name}-{number}": png(number) for number in range(3)})
        yield client


@pytest.fixture
def admin(guarded: TestClient) -> TestClient:
    return holder(guarded, next(_names), "admin")


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def entries_of(client: TestClient) -> list[dict]:
    """The audit log of a service that has been stopped, oldest first."""
    settings = core_of(client).settings
    return Audit(settings.data / "audit", 2**30, 10).page(None, 100_000)[0][::-1]


def test_a_stranger_learns_nothing(guarded: TestClient) -> None:
    told = []
    for verb, path in (
        ("GET", "/v1/collections/a"), ("GET", "/v1/collections/none"), ("GET", "/v1/collections/a/images/a-1"),
        ("DELETE", "/v1/collections/a"), ("POST", "/v1/collections/none/anomaly"), ("GET", "/v1/jobs"),
        ("GET", "/v1/scorers"), ("GET", "/metrics"), ("GET", "/nothing"), ("PUT", "/v1/collections/new"),
        ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("BREW", "/v1/collections/a"), ("GET", "//v1/collections/a"),
        ("OPTIONS", "/v1/collections/a"), ("GET", "/v1/audit"), ("GET", "/v1/collections/a/"),
    ):  # fmt: skip
        answer = guarded.request(verb, path)
        body = problem_of(answer, 401, "key_missing")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        told.append({name: value for name, value in body.items() if name != "instance"})
    assert all(one == told[0] for one in told)
    assert guarded.get("/healthz").json() == {"status": "ok"}
    assert guarded.get("/readyz").json() == {"status": "ready"}
    for path in PUBLIC - {"/favicon.ico"}:
        assert guarded.get(path).status_code == 200, path


def test_a_body_is_not_read_before_the_key(guarded: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        raise AssertionError("was read")
        yield b""

    scope_of = guarded.app
    sent = []

    async def receive() -> dict:
        raise AssertionError("was read")

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/collections/a/images", "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"x"), (b"content-length", b"9999")], "server": ("10.0.0.1", 80),
        "client": ("10.0.0.2", 1), "http_version": "1.1", "raw_path": b"", "root_path": "",
    }  # fmt: skip

    async def ask() -> None:
        await scope_of(scope, receive, send)

    guarded.portal.call(ask)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer oddity_000000000000_" + "a" * 43, "bearer x", "Bearer " + "é" * 9],
)
def test_what_is_no_key_opens_nothing(guarded: TestClient, header: str) -> None:
    answer = guarded.get("/v1/collections", headers={"Authorization": header.encode("latin-1")})
    problem_of(answer, 401)


def test_a_key_may_come_in_either_header(guarded: TestClient) -> None:
    token = token_of(guarded, next(_names), "read")
    assert guarded.get("/v1/collections/a", headers=bearer(token)).status_code == 200
    assert guarded.get("/v1/collections/a", headers={"Authorization": f"bearer {token}"}).status_code == 200
    assert guarded.get("/v1/collections/a", headers={"X-API-Key": token}).status_code == 200
    # A proxy's own credentials stand in the other header.
    both = {"Authorization": "Basic YTpi", "X-API-Key": token}
    assert guarded.get("/v1/collections/a", headers=both).status_code == 200
    problem_of(guarded.get(f"/v1/collections/a?api_key={token}"), 401)
    problem_of(guarded.get("/v1/collections/a", headers=bearer(token[:-1] + "!")), 401, "key_refused")
    other = token_of(guarded, next(_names), "read")
    forged = token[:20] + other[20:]
    assert id_of(forged) == id_of(token)
    problem_of(guarded.get("/v1/collections/a", headers=bearer(forged)), 401, "key_refused")


def test_only_a_hash_is_kept_and_the_token_is_shown_once(guarded: TestClient, admin: TestClient) -> None:
    name = next(_names)
    made = admin.post("/v1/keys", json={"name": name, "scopes": ["read"], "collections": ["a"]})
    assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
    token = made.json()["token"]
    assert guarded.get("/v1/collections/a", headers=bearer(token)).status_code == 200  # at once
    secret = token.split("_", 2)[2]
    key = admin.get(f"/v1/keys/{name}").json()
    assert "token" not in key
    assert (key["scopes"], key["collections"], key["state"]) == (["read"], ["a"], "active")
    assert secret not in admin.get("/v1/keys").text
    with core_of(guarded).database.read() as session:
        row = session.get_one(ApiKeyRow, key["id"])
        kept = [str(getattr(row, column.key)) for column in ApiKeyRow.__table__.columns]
    assert row.secret_sha256 == digest(token)
    assert not any(secret in one or one in secret for one in kept if len(one) > 12)
    problem_of(admin.post("/v1/keys", json={"name": name, "scopes": ["read"]}), 409, "key_name_taken")


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["all"]}, "scopes"),
        ({"name": "a/b"}, "name"),
        ({"collections": []}, "collections"),
        ({"collections": ["a*b"]}, "collections"),
        ({"collections": ["../a"]}, "collections"),
        ({"collections": ["a/*"]}, "collections"),
        ({"scopes": ["admin"], "collections": ["a"]}, "collections"),
        ({"expires_at": "2031-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-01:00"}, "expires_at"),
        ({"requests_per_s": 0}, "requests_per_s"),
        ({"requests_per_day": 0}, "requests_per_day"),
        ({"token": "x"}, "token"),
    ],
)
def test_a_key_that_makes_no_sense(admin: TestClient, given: dict, where: str) -> None:
    body = problem_of(admin.post("/v1/keys", json={"name": next(_names), "scopes": ["read"], **given}), 422)
    assert where in body["detail"]


def test_an_expired_key_opens_nothing(tmp_path: Path) -> None:
    moment = [datetime(2031, 5, 1, 12)]
    settings = Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1, access="keys")
    with TestClient(create_app(settings, clock=lambda: moment[0])) as client:
        ends = datetime(2031, 5, 1, 13, tzinfo=UTC)
        reader = holder(client, "reader", "read", expires_at=ends)
        assert reader.get("/v1/collections").status_code == 200
        moment[0] += timedelta(hours=1)
        problem_of(reader.get("/v1/collections"), 401, "key_refused")


def test_rotating_changes_the_token_and_nothing_else(guarded: TestClient, admin: TestClient) -> None:
    made = admin.post("/v1/keys", json={"name": next(_names), "scopes": ["read"], "collections": ["a"]}).json()
    first = made["token"]
    kept = admin.post(f"/v1/keys/{made['id']}/rotate", json={"keep_s": 600}).json()
    assert kept["id"] == made["id"] and kept["collections"] == ["a"] and kept["rotated_at"]
    for token in (first, kept["token"]):
        assert guarded.get("/v1/collections/a", headers=bearer(token)).status_code == 200
    last = admin.post(f"/v1/keys/{made['name']}/rotate").json()["token"]
    for token in (first, kept["token"]):
        problem_of(guarded.get("/v1/collections/a", headers=bearer(token)), 401, "key_refused")
    assert guarded.get("/v1/collections/a", headers=bearer(last)).status_code == 200


def test_revoking_ends_a_key_for_good(guarded: TestClient, admin: TestClient) -> None:
    made = admin.post("/v1/keys", json={"name": next(_names), "scopes": ["read"]}).json()
    reader = bearer(made["token"])
    assert guarded.get("/v1/collections", headers=reader).status_code == 200
    assert admin.delete(f"/v1/keys/{made['id']}").json()["state"] == "revoked"
    problem_of(guarded.get("/v1/collections", headers=reader), 401, "key_refused")
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 200
    problem_of(admin.post(f"/v1/keys/{made['id']}/rotate"), 409, "key_revoked")
    problem_of(admin.delete("/v1/keys/none"), 404, "key_unknown")


def test_every_process_knows_within_a_second(serve: Serve) -> None:
    with serve(access="keys", jobs="off") as one, serve(access="keys", jobs="off") as two:
        admin = holder(one, "admin", "admin")
        made = admin.post("/v1/keys", json={"name": "reader", "scopes": ["read"]}).json()
        reader = bearer(made["token"])
        assert two.get("/v1/collections", headers=reader).status_code == 200  # at once: it is looked for
        assert admin.delete("/v1/keys/reader").status_code == 200
        time.sleep(LOOK_EVERY_S)
        problem_of(two.get("/v1/collections", headers=reader), 401, "key_refused")


def test_a_key_of_a_setting_needs_no_record(serve: Serve) -> None:
    with serve(access="keys", admin_key=SecretStr("k" * 40)) as client:
        assert client.get("/v1/keys", headers=bearer("k" * 40)).json() == {"keys": []}
        problem_of(client.get("/v1/keys", headers=bearer("k" * 41)), 401, "key_refused")


def test_a_key_of_a_setting_follows_a_job_to_its_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "EVENT_EVERY_S", 0.01)
    with serve(access="keys", admin_key=SecretStr("k" * 40), jobs="off") as client:
        core = core_of(client)
        job, _ = service.submit(core, "nobody does this", None, {})
        ending = threading.Timer(0.2, service.cancel, (core, job["id"]))
        ending.start()
        answer = client.get(f"/v1/jobs/{job['id']}/events", headers=bearer("k" * 40))
        ending.join()
        assert "event: end" in answer.text


def test_beginnings_of_names_are_taken_letter_by_letter() -> None:
    caller = Caller("1", "n", frozenset({"read"}), ("line-*", "exact", "50%_*"))
    for name in ("line-", "line-7", "exact", "50%_x"):
        assert caller.sees(name), name
    for name in ("LINE-7", "line", "exactly", "Exact", "50%ax", "", "*", None):
        assert not caller.sees(name), name


def test_lists_show_what_the_key_is_for(guarded: TestClient, admin: TestClient) -> None:
    for name in ("Line-1", "line-1", "line-2", "lineage"):
        admin.put(f"/v1/collections/{name}").raise_for_status()

    def listed(*patterns: str) -> list[str]:
        reader = holder(guarded, next(_names), "read", collections=patterns)
        found, cursor = [], ""
        while cursor is not None:
            page = reader.get("/v1/collections", params={"limit": 1, "cursor": cursor}).json()
            found += [one["name"] for one in page["collections"]]
            cursor = page["next"]
        return found

    assert listed("line-*") == ["line-1", "line-2"]
    assert listed("line-*", "a", "none") == ["a", "line-1", "line-2"]
    assert listed("none") == []
    assert {"a", "b", "Line-1", "lineage"} <= set(listed("*"))


def test_a_rate_is_held_and_says_when_to_come_again(guarded: TestClient) -> None:
    hasty = holder(guarded, next(_names), "read", requests_per_s=0.1)
    assert hasty.get("/v1/collections").status_code == 200
    answer = hasty.get("/v1/collections")
    problem_of(answer, 429, "rate_exceeded")
    assert 8 <= int(answer.headers["retry-after"]) <= 10
    assert hasty.get("/healthz").status_code == 200  # costs nothing
    assert holder(guarded, next(_names), "read").get("/v1/collections").status_code == 200


def test_a_bucket_fills_at_its_rate(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("app.access.meter.time.monotonic", lambda: now[0])
    key = Key(Caller("1", "n", frozenset({"read"}), ("*",)), "", None, None, None, 4.0, None)
    meter = Meter(lambda: datetime(2031, 1, 1))

    def admitted() -> int:
        for number in range(100):
            try:
                meter.admit(key)
            except TooMany:
                return number
        return 100

    assert admitted() == 8  # two seconds' worth, and nothing more
    now[0] += 1.0
    assert admitted() == 4
    now[0] += 1000.0
    assert admitted() == 8


def test_a_quota_is_of_the_day_and_of_all_processes(tmp_path: Path) -> None:
    moment = [datetime(2031, 5, 1, 23, 30)]
    settings = Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1, access="keys")
    with TestClient(create_app(settings, clock=lambda: moment[0])) as client:
        token = token_of(client, "five", "read", requests_per_day=5)
        for _ in range(3):
            assert client.get("/v1/collections", headers=bearer(token)).status_code == 200
    with TestClient(create_app(settings, clock=lambda: moment[0])) as client:  # stopping wrote the count
        database = core_of(client).database
        with database.read() as session:
            assert session.query(KeyUsageRow).one().requests == 3
        meter = client.app.state.doors.meter
        assert client.get("/v1/collections", headers=bearer(token)).status_code == 200
        client.app.state.doors.ledger._count()
        assert client.get("/v1/collections", headers=bearer(token)).status_code == 200
        answer = client.get("/v1/collections", headers=bearer(token))
        problem_of(answer, 429, "quota_spent")
        assert answer.headers["retry-after"] == "1800"
        moment[0] += timedelta(minutes=31)
        assert client.get("/v1/collections", headers=bearer(token)).status_code == 200
        assert meter.take()[1] == {id_of(token): 1}


def test_an_idempotency_key_is_its_callers_own(guarded: TestClient) -> None:
    one, two = (holder(guarded, next(_names), "read", "write", collections=["a"]) for _ in range(2))
    headers = {"Idempotency-Key": "same", "content-type": "image/png"}
    path = "/v1/collections/a/images"
    first = one.post(path, headers=headers, content=png(50))
    assert first.status_code == 201 and first.json()["created"] == 1
    again = one.post(path, headers=headers, content=png(50))
    assert again.headers["idempotent-replayed"] == "true" and again.json() == first.json()
    other = two.post(path, headers=headers, content=png(51))  # neither the first's answer nor 422
    assert other.status_code == 201 and "idempotent-replayed" not in other.headers
    job = one.post("/v1/collections/a/compact", headers={"Idempotency-Key": "same"}).json()
    assert two.post("/v1/collections/a/compact", headers={"Idempotency-Key": "same"}).json()["id"] != job["id"]


def test_the_audit_log_tells_of_writes_and_use_and_holds_no_secret(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1, access="keys")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        writer = token_of(client, "writer", "read", "write", collections=["a"])
        headers = bearer(writer)
        client.put("/v1/collections/a", headers=headers).raise_for_status()
        client.post(
            "/v1/collections/a/anomaly?filter=hidden",
            headers={**headers, "content-type": "text/csv"},
            content=b"bytes-of-body",
        )
        client.get("/v1/collections/a", headers=headers)
        client.delete("/v1/collections/b?filter=hidden", headers={**headers, "x-request-id": "mine"})
        client.delete("/v1/collections/b", headers=bearer("oddity_000000000000_" + "s" * 43))
    entries = entries_of(client)
    writes = [one for one in entries if one["event"] == "write"]
    assert [(one["method"], one["path"], one["status"], one["name"]) for one in writes] == [
        ("PUT", "/v1/collections/a", 201, "writer"),
        ("DELETE", "/v1/collections/b", 403, "writer"),
    ]
    assert writes[1]["request"] == "mine" and writes[0]["address"] == "testclient"
    uses = {one["name"]: one for one in entries if one["event"] == "use"}
    assert uses["writer"]["answers"] == {"200": 1, "201": 1, "403": 1, "415": 1}
    assert uses[""]["answers"] == {"401": 1}
    text = json.dumps(entries)
    for secret in (writer, writer.split("_", 2)[2], "hidden", "bytes-of-body", "s" * 43):
        assert secret not in text


def test_the_audit_log_is_read_page_by_page_by_admins_only(admin: TestClient, guarded: TestClient) -> None:
    for number in range(5):
        admin.put(f"/v1/collections/audited-{number}").raise_for_status()
    problem_of(holder(guarded, next(_names), "read", "write").get("/v1/audit"), 403, "scope_missing")
    wait_for(guarded.app.state.doors.ledger._waiting.empty)
    found, cursor = [], ""
    while cursor is not None and len(found) < 1000:
        page = admin.get("/v1/audit", params={"limit": 2, "cursor": cursor}).json()
        found += page["entries"]
        cursor = page["next"]
    paths = [one["path"] for one in found if one["event"] == "write" and "audited" in one["path"]]
    assert set(paths) >= {f"/v1/collections/audited-{number}" for number in range(4)}
    assert paths == sorted(paths, reverse=True)
    whole = admin.get("/v1/audit", params={"limit": 1000}).json()["entries"]
    assert [one for one in whole if one in found] == found


def test_audit_files_are_closed_when_full_and_the_oldest_go(tmp_path: Path) -> None:
    one, two = (Audit(tmp_path / "audit", 4096, 3) for _ in range(2))
    for number in range(100):
        (one, two)[number % 2].append([{"number": number, "filling": "x" * 200}])
    names = sorted(path.name for path in (tmp_path / "audit").iterdir())
    assert "audit.jsonl" in names and len([name for name in names if name.endswith(".jsonl")]) <= 3
    assert all(path.stat().st_size < 4096 + 300 for path in (tmp_path / "audit").glob("*.jsonl"))
    numbers, before = [], None
    while True:
        page, before = one.page(before, 7)
        numbers += [entry["number"] for entry in page]
        if before is None:
            break
    assert numbers == list(range(99, numbers[-1] - 1, -1)) and len(numbers) > 30


def test_a_torn_line_of_the_audit_log_costs_that_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit(tmp_path / "audit", 2**20, 3)
    audit.append([{"number": 1}])
    write = os.write
    with monkeypatch.context() as patch:
        # As where the disk is full; other services of this process write on.
        patch.setattr(os, "write", lambda to, data: write(to, data[:5] if b'"number": 2' in data else data))
        with pytest.raises(OSError, match="No space"):
            audit.append([{"number": 2}])
    audit.append([{"number": 3}])
    audit.append([{"number": 4}])
    entries, following = audit.page(None, 10)
    assert [one.get("number", one.get("event")) for one in entries] == [4, 3, "unreadable", 1]
    assert following is None


def test_of_two_looks_that_overlap_the_newer_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(f"sqlite:///{tmp_path / 'record.db'}")
    database.migrate()
    now = datetime(2031, 5, 1)
    key, _ = create_key(database, KeyParameters(name="k", scopes=frozenset({"read"})), now)
    keyring = Keyring(database, lambda: now)
    has_read, may_end = threading.Event(), threading.Event()

    def slow(row: ApiKeyRow) -> Key:
        has_read.set()
        assert may_end.wait(30)
        return of_row(row)

    of_row = keyring_module._key
    monkeypatch.setattr(keyring_module, "_key", slow)
    first, second = (threading.Thread(target=keyring.look) for _ in range(2))
    first.start()
    assert has_read.wait(30)
    revoke_key(database, "k", now)
    second.start()
    second.join(0.3)  # it is through with its look, or waits for the first
    may_end.set()
    first.join()
    second.join()
    keyring.look()
    assert not keyring.is_valid(key["id"])
    database.close()


def test_a_full_disk_does_not_stop_requests(serve: Serve, monkeypatch, caplog) -> None:
    with serve(access="keys") as client:
        admin = holder(client, "admin", "admin")

        def full(audit: Audit, entries: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "oddity"):
            patch.setattr(Audit, "append", full)
            admin.put("/v1/collections/a").raise_for_status()
            ledger = client.app.state.doors.ledger
            wait_for(lambda: ledger._lost)
            assert "audit_unwritable" in caplog.text
    assert any(one["event"] == "lost" and one["entries"] >= 1 for one in entries_of(client))


def test_no_secret_in_log_or_error(guarded: TestClient, caplog) -> None:
    key_id = new_id()
    token = new_token(key_id)
    secret = token.split("_", 2)[2]
    with caplog.at_level(logging.DEBUG, "oddity"):
        answer = guarded.get(f"/v1/collections?key={token}", headers=bearer(token))
        assert secret not in answer.text and secret not in str(answer.headers)
    assert secret not in caplog.text and all(secret not in str(vars(one)) for one in caplog.records)


# Where no key is asked for.


def test_on_the_machines_own_address_none_is_needed_and_elsewhere_one_is(shared: TestClient) -> None:
    app = shared.app
    for host, status in (("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 401), ("0.0.0.0", 401), ("2001:db8::1", 401)):
        sent: list[dict] = []

        async def ask(host: str = host, sent: list[dict] = sent) -> None:
            async def receive() -> dict:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: dict) -> None:
                sent.append(message)

            scope = {
                "type": "http", "method": "GET", "path": "/v1/collections", "query_string": b"", "scheme": "http",
                "headers": [(b"host", b"localhost:8000")], "server": (host, 8000), "client": ("127.0.0.1", 5),
                "http_version": "1.1", "raw_path": b"/v1/collections", "root_path": "",
            }  # fmt: skip
            await app(scope, receive, send)

        shared.portal.call(ask)
        assert sent[0]["status"] == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"host": "["},
        {"host": "evil.example"},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"},
    ],
)
def test_a_foreign_page_cannot_use_the_readers_browser(shared: TestClient, headers: dict[str, str]) -> None:
    problem_of(shared.post("/v1/collections/c/images/delete", headers=headers, json={"ids": ["x"]}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin", "origin": "http://localhost:8000", "host": "localhost:8000"},
        {"host": "[::1]:8000"},
        {"host": "192.168.0.7"},
        {"host": "app.localhost"},
        {"sec-fetch-site": "none"},
    ],
)
def test_its_own_page_and_programs_can(shared: TestClient, headers: dict[str, str]) -> None:
    assert shared.put("/v1/collections/own-page", headers=headers).status_code in (200, 201)


def test_no_other_site_may_read_answers(shared: TestClient) -> None:
    asked = {"origin": "http://localhost:1", "access-control-request-method": "GET", "host": "localhost:1"}
    for answer in (shared.get("/v1/collections", headers=asked), shared.options("/v1/collections", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_every_answer_tells_browsers_what_to_leave_alone(shared: TestClient) -> None:
    for path in ("/", "/docs", "/healthz", "/v1/collections", "/nothing", "/static/docs.js"):
        headers = shared.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer", path
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert len(headers.get_list("content-security-policy")) == 1
    assert shared.get("/v1/collections").headers["cache-control"] == "no-store"
    add(shared, "headers", {"x": png(3)})
    assert "immutable" in shared.get("/v1/collections/headers/images/x/content").headers["cache-control"]
