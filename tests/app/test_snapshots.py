"""Snapshots: what is restored answers as the original did, and what is damaged is refused as a whole."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pgserver
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.access.caller import ANYBODY
from app.collections.service import get_collection, list_collections, put_collection
from app.core import Core
from app.db.tables import CollectionRow
from app.errors import Invalid, NotFound
from app.idempotency import Key
from app.jobs.runner import Runner
from app.jobs.service import get_job
from app.main import HANDLERS, close_core, create_app, open_core
from app.settings import Settings
from app.snapshots import restoring, service
from app.snapshots.restoring import check
from app.snapshots.tape import TapeWriter
from app.uploads import Received
from tests.app.working import asked, core_of, finished, part
from tests.conftest import add

WIDTH = 512


class Quiet:
    """A job's context that is never stopped."""

    def check(self) -> None:
        pass

    def progress(self, done: int, total: int | None = None, stage: str | None = None) -> None:
        pass


@pytest.fixture(scope="module")
def settings_here(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data=tmp_path_factory.mktemp("data"), weights="stand-in", image_size=32, threads=2)


@pytest.fixture(scope="module")
def here(settings_here: Settings) -> Iterator[TestClient]:
    """A service with a collection `parts` that has everything a collection can have."""
    with TestClient(create_app(settings_here), raise_server_exceptions=False) as client:
        add(client, "parts", {f"n{number}": part(number) for number in range(24)})
        add(client, "parts", {"gone": part(99)})
        add(client, "parts", {f"d{number}": part(50 + number, scratch=6) for number in range(3)}, role="anomalous")
        add(client, "parts", {"u é": part(60)}, role="unlabelled", label="etikett", group="tag")
        client.patch("/v1/collections/parts", json={"k": 3, "description": "größe"}).raise_for_status()
        client.patch(
            "/v1/collections/parts/images/n1", json={"metadata": {"line": [1, {"a": None}]}}
        ).raise_for_status()
        client.put(
            "/v1/collections/parts/groups/set", json={"ids": ["n3", "n1", "u é"], "metadata": {"day": 1}}
        ).raise_for_status()
        told = client.post("/v1/collections/parts/feedback", json={"kind": "confirmed", "id": "d1", "note": "yes"})
        assert told.status_code < 300, told.text
        client.delete("/v1/collections/parts/images/gone").raise_for_status()
        yield client


@pytest.fixture(scope="module")
def taken(here: TestClient) -> dict[str, Any]:
    """The snapshot of `parts`."""
    return finished(here, "/v1/collections/parts/snapshots")


@pytest.fixture(scope="module")
def data(here: TestClient, taken: dict[str, Any]) -> bytes:
    """The snapshot as it is downloaded."""
    return here.get(f"/v1/collections/parts/snapshots/{taken['snapshot']}").content


@pytest.fixture
def there(settings: Settings) -> Iterator[TestClient]:
    """Another, empty service."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def restore(client: TestClient, data: bytes, name: str = "back") -> dict[str, Any]:
    """The job of a restore that was accepted, after its end; a refusal looks like a job that failed."""
    answer = client.post(f"/v1/collections/{name}/restore", files={"snapshot": ("s", data)}, params={"wait": 60})
    if answer.status_code >= 400:
        return {"state": "refused", "problem": answer.json()}
    job: dict[str, Any] = answer.json()
    return job


def told(client: TestClient, name: str) -> dict[str, Any]:
    """What a collection answers to everybody, without what only the record knows."""
    strangers = [part(200), part(201, scratch=5), part(3)]
    answer = asked(client, name, strangers, neighbours=7)
    again = asked(client, name, strangers[:1], k=5)
    listed = client.get(f"/v1/collections/{name}/images", params={"limit": 1000}).json()["images"]
    of_ids = client.post(f"/v1/collections/{name}/query", json={"ids": ["n5", "d2", "u é"], "k": 12}).json()
    groups = client.get(f"/v1/collections/{name}/groups").json()
    shown = client.get(f"/v1/collections/{name}").json()
    for one in (answer, again, of_ids, shown, *listed):
        for field in ("sequence", "revision", "name"):
            one.pop(field, None)
    for field in ("created_at", "updated_at"):
        shown.pop(field)
    content = hashlib.sha256(client.get(f"/v1/collections/{name}/images/n7/content").content).hexdigest()
    return {
        "anomaly": answer,
        "another k": again,
        "images": listed,
        "query": of_ids,
        "groups": groups,
        "collection": shown,
        "content": content,
    }


def nothing_visible(client: TestClient, name: str = "back") -> bool:
    names = [one["name"] for one in client.get("/v1/collections").json()["collections"]]
    uploads = core_of(client).settings.data / "uploads"
    return (
        name not in names
        and all("/" not in one for one in names)
        and client.get(f"/v1/collections/{name}").status_code == 404
        and not list(uploads.iterdir())
    )


def hidden(core: Core) -> list[str]:
    with core.database.read() as session:
        return [row.name for row in session.query(CollectionRow) if row.name.startswith("/")]


def test_another_service_answers_the_same_after_a_restore(here: TestClient, there: TestClient, data: bytes) -> None:
    job = restore(there, data)
    assert job["state"] == "succeeded", job
    assert (job["result"]["images"], job["result"]["groups"], job["result"]["feedback"]) == (28, 1, 1)
    original = told(here, "parts")
    restored = told(there, "back")
    for name in original:
        assert restored[name] == original[name], name
    assert original["anomaly"]["results"][0]["p_value"] is not None
    judged = there.get("/v1/collections/back/feedback").json()
    assert [(one["kind"], one["note"]) for one in judged["feedback"]] == [("confirmed", "yes")]
    add(there, "back", {"later": part(300)})
    assert there.get("/v1/collections/back").json()["images"] == 29, "it is a collection like any other"
    assert nothing_visible(there, "none")


def test_a_changed_collection_answers_differently(here: TestClient, there: TestClient, data: bytes) -> None:
    """The comparison of the test above can fail."""
    restore(there, data)
    there.delete("/v1/collections/back/images/n5").raise_for_status()
    changed, original = told(there, "back"), told(here, "parts")
    assert changed["anomaly"] != original["anomaly"]
    assert changed["images"] != original["images"]


def test_a_snapshot_is_a_plain_archive(taken: dict[str, Any], data: bytes) -> None:
    assert (len(data), hashlib.sha256(data).hexdigest()) == (taken["bytes"], taken["sha256"])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        assert names[:3] == ["manifest.json", "manifest.sha256", "images.jsonl"]
        manifest = json.load(archive.extractfile("manifest.json"))
        assert manifest["format"] == 3
        assert (manifest["images"], manifest["files"], manifest["embedding"]["width"]) == (28, 28, WIDTH)
        vectors = np.frombuffer(archive.extractfile("vectors.f32").read(), "<f4").reshape(28, WIDTH)
        assert np.isfinite(vectors).all()
        stored = [name.removeprefix("images/") for name in names if name.startswith("images/")]
        assert stored == sorted(stored)
        for sha256 in stored:
            assert hashlib.sha256(archive.extractfile(f"images/{sha256}").read()).hexdigest() == sha256


def test_listing_ranges_and_deleting(here: TestClient, data: bytes) -> None:
    add(here, "listed", {"a": part(1)})
    assert here.get("/v1/collections/listed/snapshots").json() == {"snapshots": [], "next": None}
    made = [finished(here, "/v1/collections/listed/snapshots")["snapshot"] for _ in range(3)]
    first = here.get("/v1/collections/listed/snapshots", params={"limit": 2}).json()
    rest = here.get("/v1/collections/listed/snapshots", params={"cursor": first["next"]}).json()
    assert [one["id"] for one in first["snapshots"] + rest["snapshots"]] == made[::-1]
    path = f"/v1/collections/listed/snapshots/{made[0]}"
    whole = here.get(path)
    assert whole.headers["etag"] == f'"{rest["snapshots"][0]["sha256"]}"'
    some = here.get(path, headers={"Range": "bytes=512-600"})
    assert (some.status_code, some.content) == (206, whole.content[512:601])
    assert here.get(f"/v1/collections/parts/snapshots/{made[0]}").json()["code"] == "snapshot_unknown"
    assert here.delete(path).status_code == 204
    assert here.delete(path).json()["code"] == "snapshot_unknown"
    assert here.get(path).status_code == 404
    folder = core_of(here).settings.data / "snapshots"
    assert {one.stem for one in folder.iterdir()} >= set(made[1:])
    assert not (folder / f"{made[0]}.tar").exists()
    assert here.get("/v1/collections/nowhere/snapshots").json()["code"] == "collection_unknown"


def test_a_snapshot_outlives_its_collection(here: TestClient) -> None:
    add(here, "short", {"a": part(1), "b": part(2)})
    made = finished(here, "/v1/collections/short/snapshots")["snapshot"]
    here.delete("/v1/collections/short").raise_for_status()
    assert [one["id"] for one in here.get("/v1/collections/short/snapshots").json()["snapshots"]] == [made]
    for name in ("short", "other"):
        result = finished(here, f"/v1/collections/{name}/restore", {"snapshot": made})
        assert (result["images"], result["made_from"]) == (2, "short")
        assert here.get(f"/v1/collections/{name}").json()["images"] == 2
    again = here.post("/v1/collections/short/restore", json={"snapshot": made})
    assert (again.status_code, again.json()["code"]) == (409, "collection_exists")
    assert here.post("/v1/collections/new/restore", json={"snapshot": "0" * 32}).json()["code"] == "snapshot_unknown"
    assert here.post("/v1/collections/new/restore", json={}).json()["code"] == "snapshot_missing"


def test_without_images_everything_but_their_bytes_comes_back(here: TestClient, there: TestClient) -> None:
    answer = here.post("/v1/collections/parts/snapshots", params={"images": "false", "wait": 60}).json()
    assert (answer["result"]["files"], answer["result"]["with_images"]) == (0, False)
    small = here.get(f"/v1/collections/parts/snapshots/{answer['result']['snapshot']}").content
    assert restore(there, small)["state"] == "succeeded"
    assert there.get("/v1/collections/back/images/n1/content").json()["code"] == "bytes_missing"
    strangers = [part(200), part(201, scratch=5)]
    one, other = asked(here, "parts", strangers), asked(there, "back", strangers)
    assert one["results"] == other["results"]


def test_a_compressed_bank_comes_back_compressed(here: TestClient, there: TestClient) -> None:
    for method in ("coreset", "kmeans"):
        name = f"small_{method}"
        add(here, name, {f"n{number}": part(number) for number in range(40)})
        finished(here, f"/v1/collections/{name}/compress", {"method": method, "size": 6})
        here.delete(f"/v1/collections/{name}/images/n3").raise_for_status()
        add(here, name, {"late": part(77)})
        made = finished(here, f"/v1/collections/{name}/snapshots")["snapshot"]
        job = restore(there, here.get(f"/v1/collections/{name}/snapshots/{made}").content, name)
        assert job["state"] == "succeeded", job
        strangers = [part(200), part(201, scratch=5)]
        one, other = asked(here, name, strangers), asked(there, name, strangers)
        assert one["results"] == other["results"]
        assert one["calibration"] == other["calibration"]
        before = here.get(f"/v1/collections/{name}/compress").json()
        assert there.get(f"/v1/collections/{name}/compress").json() == before


def test_a_flipped_bit_anywhere_is_refused_and_placed(data: bytes) -> None:
    check(io.BytesIO(data), Quiet())  # type: ignore[arg-type]
    random = np.random.default_rng(5)
    for place in [0, len(data) - 1, *random.integers(0, len(data), 50).tolist()]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(random.integers(8))
        with pytest.raises(Invalid) as caught:
            check(io.BytesIO(damaged), Quiet())  # type: ignore[arg-type]
        assert caught.value.code in ("snapshot_damaged", "no_snapshot"), (place, caught.value.detail)


def test_each_byte_of_headers_and_padding_counts(data: bytes) -> None:
    """Those that no hash of a member covers, all of them."""
    reference = bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.getmembers()[3]
    places = [*range(member.offset, member.offset_data, 7), member.offset_data + member.size, len(data) - 700]
    for place in places:
        damaged = bytearray(reference)
        damaged[place] ^= 0x20
        with pytest.raises(Invalid):
            check(io.BytesIO(damaged), Quiet())  # type: ignore[arg-type]


def test_cut_off_or_lengthened_is_refused(data: bytes) -> None:
    for size in (0, 100, 512, 5000, len(data) - 1024, len(data) - 1):
        with pytest.raises(Invalid):
            check(io.BytesIO(data[:size]), Quiet())  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="follows the end mark"):
        check(io.BytesIO(data + b"\0"), Quiet())  # type: ignore[arg-type]


def test_a_damaged_snapshot_restores_nothing(there: TestClient, data: bytes) -> None:
    for place in (700, len(data) // 3, len(data) - 2000):
        damaged = bytearray(data)
        damaged[place] ^= 4
        job = restore(there, bytes(damaged))
        assert job["state"] in ("refused", "failed")
        assert job["problem"]["code"] == "snapshot_damaged"
        assert "byte" in job["problem"]["detail"]
        assert nothing_visible(there)
        assert not hidden(core_of(there))
    assert not list((core_of(there).settings.data / "images").iterdir()), "not even bytes were stored"
    assert restore(there, data)["state"] == "succeeded", "the control"


def test_from_sqlite_to_postgresql_and_back(
    here: TestClient, there: TestClient, data: bytes, settings: Settings, tmp_path: Path
) -> None:
    server = pgserver.get_server(tmp_path / "postgresql")
    elsewhere = settings.model_copy(
        update={"data": tmp_path / "elsewhere", "database_url": SecretStr(server.get_uri())}
    )
    original = told(here, "parts")
    with TestClient(create_app(elsewhere), raise_server_exceptions=False) as postgresql:
        assert restore(postgresql, data)["state"] == "succeeded"
        assert told(postgresql, "back") == original
        made = finished(postgresql, "/v1/collections/back/snapshots")["snapshot"]
        again = postgresql.get(f"/v1/collections/back/snapshots/{made}").content
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        assert restore(postgresql, bytes(damaged), "other")["state"] in ("refused", "failed")
        assert nothing_visible(postgresql, "other")
    server.cleanup()
    assert restore(there, again)["state"] == "succeeded"
    assert told(there, "back") == original


class Killed(BaseException):
    """What no handler expects."""


@pytest.fixture
def core(settings: Settings) -> Iterator[Core]:
    core = open_core(settings)
    yield core
    close_core(core)


def submit(core: Core, data: bytes, name: str = "back") -> str:
    """A queued restore; its id."""
    upload = core.settings.data / "uploads" / hashlib.sha256(name.encode()).hexdigest()
    upload.parent.mkdir(exist_ok=True)
    upload.write_bytes(data)
    received = Received(upload, len(data), hashlib.sha256(data).hexdigest(), "s")
    job, _ = service.submit_restore(core, ANYBODY, name, received, {}, Key("", None))
    job_id: str = job["id"]
    return job_id


def names(core: Core) -> list[str]:
    return [one["name"] for one in list_collections(core, ANYBODY, "", 100)[0]]


def test_a_restore_killed_in_its_last_step_leaves_nothing_visible_and_is_run_again(
    here: TestClient, data: bytes, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*given: Any) -> None:
        raise Killed

    job_id = submit(core, data)
    with monkeypatch.context() as patch:
        patch.setattr(restoring, "_publish", kill)
        # A killed process tidies nothing up.
        patch.setattr(restoring._Builder, "discard", lambda *_: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            Runner(core, HANDLERS, lease_s=0.0).run_one()
    assert hidden(core) == [f"/restoring/{job_id}"], "it was complete but for its name"
    assert names(core) == []
    with pytest.raises(NotFound):
        get_collection(core, "back")
    with pytest.raises(NotFound):
        core.shelf.get("back")
    assert Runner(core, HANDLERS).run_one()
    job = get_job(core, job_id)
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
    assert (hidden(core), names(core)) == ([], ["back"])
    with TestClient(create_app(core.settings)) as client:
        assert told(client, "back")["anomaly"] == told(here, "parts")["anomaly"]


def test_what_a_given_up_restore_left_goes_with_the_next(
    data: bytes, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = submit(core, data)
    with monkeypatch.context() as patch:
        patch.setattr(restoring._Builder, "discard", lambda *_: None)
        patch.setattr(restoring, "_publish", lambda *_: 1 / 0)
        Runner(core, HANDLERS).run_one()
    assert get_job(core, left)["state"] == "failed"
    assert len(hidden(core)) == 1
    submit(core, data, "second")
    Runner(core, HANDLERS).run_one()
    assert (hidden(core), names(core)) == ([], ["second"])


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_name_taken_meanwhile_is_not_replaced(
    data: bytes, core: Core, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    job_id = submit(core, data)
    if not is_seen:  # committed by another server between the last look and the write
        monkeypatch.setattr(restoring, "refuse_taken", lambda _session, _name: None)
    put_collection(core, "back", {"description": "mine"}, None)
    Runner(core, HANDLERS).run_one()
    job = get_job(core, job_id)
    assert (job["state"], job["problem"]["code"]) == ("failed", "collection_exists")
    assert (hidden(core), names(core)) == ([], ["back"])
    assert get_collection(core, "back")[0]["description"] == "mine"


def test_a_name_taken_at_the_last_moment_is_not_replaced(
    data: bytes, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL a request that makes a collection may not have ended when it is looked whether there is one."""
    job_id = submit(core, data)
    put_collection(core, "back", {"description": "mine"}, None)
    monkeypatch.setattr(restoring, "refuse_taken", lambda *_: None)
    Runner(core, HANDLERS).run_one()
    job = get_job(core, job_id)
    assert (job["state"], job["problem"]["code"]) == ("failed", "collection_exists")
    assert (hidden(core), names(core)) == ([], ["back"])


def rewritten(data: bytes, folder: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """A snapshot that is whole but says something else: every hash fits what `change` made of it."""
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            contents[member.name] = archive.extractfile(member).read()
    manifest = json.loads(contents.pop("manifest.json"))
    contents.pop("manifest.sha256")
    change(manifest, contents)
    manifest["members"] = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
        if not name.startswith("images/")
    ]
    head = json.dumps(manifest).encode()
    writer = TapeWriter(folder / "rewritten.tar")
    whole = {"manifest.json": head, "manifest.sha256": f"{hashlib.sha256(head).hexdigest()}\n".encode(), **contents}
    for name, content in whole.items():
        writer.add(name, io.BytesIO(content), len(content), lambda: None)
    writer.close()
    return (folder / "rewritten.tar").read_bytes()


def lines_of(contents: dict[str, bytes], name: str = "images.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in contents[name].splitlines()]


def to_lines(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def unchanged(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    pass


def one_id_twice(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    lines = lines_of(contents)
    lines[3]["id"] = lines[4]["id"]
    contents["images.jsonl"] = to_lines(lines)


def an_id_with_a_path(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    lines = lines_of(contents)
    lines[3]["id"] = "../x"
    contents["images.jsonl"] = to_lines(lines)


def a_hash_that_is_a_path(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    contents["files.txt"] = contents["files.txt"].replace(contents["files.txt"][:64], b"../" * 21 + b"x")


def an_unknown_role(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    contents["images.jsonl"] = contents["images.jsonl"].replace(b'"anomalous"', b'"anomolous"')


def a_line_missing(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    contents["images.jsonl"] = to_lines(lines_of(contents)[:-1])


def a_line_too_many(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    lines = lines_of(contents)
    contents["images.jsonl"] = to_lines([*lines, {**lines[0], "id": "more"}])


def vectors_missing(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    contents["vectors.f32"] = contents["vectors.f32"][:-4]


def another_width(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    manifest["embedding"]["width"] = WIDTH // 2
    contents["vectors.f32"] = contents["vectors.f32"][: len(contents["vectors.f32"]) // 2]


def a_vector_that_is_not_finite(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    contents["vectors.f32"] = contents["vectors.f32"][:-4] + np.float32("nan").tobytes()


def bytes_missing(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    first, _, rest = contents["files.txt"].partition(b"\n")
    contents["files.txt"] = rest
    del contents[f"images/{first[:64].decode()}"]
    manifest["files"] -= 1


def a_group_of_nobody(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    lines = lines_of(contents, "groups.jsonl")
    lines[0]["members"] = [0, 28]
    contents["groups.jsonl"] = to_lines(lines)


def a_further_member(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    images = {name: contents.pop(name) for name in list(contents) if name.startswith("images/")}
    contents.update({"more.bin": b"x", **images})


def another_format(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    manifest["format"] = 4


def settings_out_of_range(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    manifest["settings"]["k"] = 65


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (unchanged, None),
        (one_id_twice, "snapshot_invalid"),
        (an_id_with_a_path, "snapshot_invalid"),
        (a_hash_that_is_a_path, "snapshot_invalid"),
        (an_unknown_role, "snapshot_invalid"),
        (a_line_missing, "snapshot_invalid"),
        (a_line_too_many, "snapshot_invalid"),
        (vectors_missing, "snapshot_invalid"),
        (another_width, "snapshot_invalid"),
        (a_vector_that_is_not_finite, "snapshot_invalid"),
        (bytes_missing, "snapshot_invalid"),
        (a_group_of_nobody, "snapshot_invalid"),
        (a_further_member, "snapshot_invalid"),
        (another_format, "snapshot_format"),
        (settings_out_of_range, "snapshot_invalid"),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(
    there: TestClient, data: bytes, tmp_path: Path, change: Any, code: str | None
) -> None:
    job = restore(there, rewritten(data, tmp_path, change))
    if code is None:
        assert job["state"] == "succeeded", job
        return
    assert job["state"] in ("refused", "failed")
    assert job["problem"]["code"] == code, job["problem"]
    assert nothing_visible(there)
    assert not hidden(core_of(there))


def test_the_embedding_must_be_here(there: TestClient, data: bytes, tmp_path: Path) -> None:
    def other_weights(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
        manifest["embedding"]["fingerprint"] = "ab" * 32

    def missing_weights(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
        other_weights(manifest, contents)
        manifest["settings"]["weights"] = "file:ours.safetensors"

    def weights_anywhere(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
        other_weights(manifest, contents)
        manifest["settings"]["weights"] = "file:/etc/passwd"

    def other_name(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
        manifest["settings"]["weights"] = "file:ours.safetensors"

    for change in (other_weights, missing_weights, weights_anywhere):
        answer = there.post(
            "/v1/collections/back/restore", files={"snapshot": ("s", rewritten(data, tmp_path, change))}
        )
        assert (answer.status_code, answer.json()["code"]) == (409, "embedding_missing")
        assert "abab" in answer.json()["detail"]
    assert nothing_visible(there)
    assert restore(there, rewritten(data, tmp_path, other_name))["state"] == "succeeded", "the same weights, by default"
    assert there.get("/v1/collections/back").json()["weights"] == "stand-in"


def test_the_limit_of_an_upload(settings: Settings, data: bytes) -> None:
    small = settings.model_copy(update={"snapshot_limit_bytes": len(data) - 1, "body_limit_bytes": 1024})
    with TestClient(create_app(small)) as client:
        answer = client.post("/v1/collections/back/restore", files={"snapshot": ("s", data)})
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
        assert nothing_visible(client)


def test_a_damaged_store_makes_no_snapshot(there: TestClient, draw: Any) -> None:
    answer = add(there, "parts", {"a": part(1)})
    path = core_of(there).store.files.path(answer["items"][0]["sha256"])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    job = there.post("/v1/collections/parts/snapshots", params={"wait": 60}).json()
    assert (job["state"], job["problem"]["code"]) == ("failed", "bytes_damaged")
    path.unlink()
    job = there.post("/v1/collections/parts/snapshots", params={"wait": 60}).json()
    assert (job["state"], job["problem"]["code"]) == ("failed", "bytes_missing")
    assert there.get("/v1/collections/parts/snapshots").json()["snapshots"] == []
    assert list((core_of(there).settings.data / "snapshots").iterdir()) == []
