"""Imports: every good file comes in once, every bad one is reported, and nothing leads out or blows up."""

import bz2
import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.access.caller import ANYBODY
from app.collections.service import delete_collection, put_collection
from app.core import Core
from app.errors import Invalid, NotFound, TooLarge
from app.idempotency import Key
from app.importing import service
from app.importing.archives import open_archive
from app.importing.entries import Limits, plain_name
from app.importing.folders import Folder
from app.jobs.runner import Runner
from app.jobs.service import cancel, get_job
from app.main import HANDLERS, close_core, open_core
from app.settings import Settings
from app.uploads import LEFT_OVER_S, sweep
from tests.app.conftest import Serve
from tests.app.working import core_of
from tests.conftest import png

LIMITS = Limits(file_bytes=2**20, unpacked_bytes=2**30, ratio=200, entries=1000)
Files = dict[str, bytes]


def zipped(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Files, *odd: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in odd:
            archive.addfile(info)
    return buffer.getvalue()


def pictures(count: int, start: int = 0, folder: str = "") -> Files:
    return {f"{folder}{number:03}.png": png(start + number) for number in range(count)}


@pytest.fixture
def shared(serve: Serve) -> Iterator[TestClient]:
    with serve() as client:
        client.put("/v1/collections/parts").raise_for_status()
        yield client


def send(client: TestClient, archive: bytes, collection: str = "parts", **parameters: Any) -> dict[str, Any]:
    """The job of an import, after it has ended."""
    answer = client.post(
        f"/v1/collections/{collection}/images/import",
        files={"archive": ("archive", archive)},
        data=parameters,
        params={"wait": 60},
    )
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def codes(result: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["problem"]["code"] for one in result["problems"]}


def images(client: TestClient, collection: str = "parts") -> dict[str, dict[str, Any]]:
    answer = client.get(f"/v1/collections/{collection}/images", params={"limit": 1000}).json()
    return {one["metadata"]["filename"]: one for one in answer["images"]}


def test_each_kind_of_archive_brings_the_same_images(shared: TestClient) -> None:
    files = pictures(3, folder="./good/")
    kinds = {
        "zip": zipped(files),
        "deflated": zipped(files, zipfile.ZIP_DEFLATED),
        "tar": tarred(files),
        "gzip": gzip.compress(tarred(files)),
        "bzip2": bz2.compress(tarred(files)),
    }
    seen = []
    for name, archive in kinds.items():
        shared.put(f"/v1/collections/{name}").raise_for_status()
        result = send(shared, archive, name)["result"]
        assert (result["created"], result["refused"], result["problems"]) == (3, 0, [])
        seen.append({file: (one["id"], one["role"]) for file, one in images(shared, name).items()})
    assert seen[0].keys() == {"good/000.png", "good/001.png", "good/002.png"}
    assert all(one == seen[0] for one in seen)
    repeat = send(shared, kinds["tar"], "zip")["result"]
    assert (repeat["created"], repeat["duplicate"]) == (0, 3)


def test_a_raw_body_and_options_in_the_query(shared: TestClient) -> None:
    answer = shared.post(
        "/v1/collections/parts/images/import",
        content=zipped({"dent/a.png": png(1), "b.png": png(2), "x/scratch/c.png": png(3)}),
        headers={"Content-Type": "application/zip"},
        params={"wait": 60, "role": "anomalous", "label_from_folder": "true", "group_from_folder": "1", "label": "any"},
    )
    assert answer.json()["result"]["created"] == 3
    found = images(shared)
    assert {one: (found[one]["label"], found[one]["group"]) for one in found} == {
        "dent/a.png": ("dent", "dent"),
        "b.png": ("any", None),
        "x/scratch/c.png": ("scratch", "scratch"),
    }
    assert {one["role"] for one in found.values()} == {"anomalous"}


def test_the_items_file_says_what_files_are(shared: TestClient) -> None:
    lines = [
        {"file_name": "bad/a.png", "id": "A", "role": "anomalous", "label": "dent", "metadata": {"line": 7}},
        {"file_name": "gone.png"},
    ]
    files = {"bad/a.png": png(1), "b.png": png(2), "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()}
    for name, archive in (("first", zipped(files)), ("second", tarred(files))):
        shared.put(f"/v1/collections/{name}").raise_for_status()
        result = send(shared, archive, name, label_from_folder="true")["result"]
        assert (result["created"], codes(result)) == (2, {"gone.png": "file_missing"})
        found = images(shared, name)
        assert found["bad/a.png"]["id"] == "A"
        assert (found["bad/a.png"]["role"], found["bad/a.png"]["label"]) == ("anomalous", "dent")
        assert found["bad/a.png"]["metadata"] == {"line": 7, "filename": "bad/a.png"}
        assert found["b.png"]["role"] == "normal"


@pytest.mark.parametrize(
    "line",
    [
        '{"file_name": "a.png", "role": "anomolous"}',
        '{"file_name": "a.png", "rôle": "normal"}',
        "{",
        "[]",
        '{"id": "x"}',
    ],
)
def test_one_wrong_line_of_the_items_file_lets_nothing_in(shared: TestClient, line: str) -> None:
    files = {"a.png": png(1), "metadata.jsonl": b'{"file_name": "b.png"}\n' + line.encode()}
    job = send(shared, zipped(files))
    assert (job["state"], job["problem"]["code"]) == ("failed", "items_malformed")
    assert "Line 2" in job["problem"]["detail"]
    assert images(shared) == {}


def test_bad_files_are_reported_and_the_others_come_in(serve: Serve) -> None:
    files = {
        "a.png": png(1),
        "text.txt": b"no image",
        "inner.zip": zipped({"b.png": png(2)}),
        "inner.tar": tarred({"b.png": png(2)}),
        "large.png": b"x" * 200_000,
        ".hidden.png": png(3),
        "__MACOSX/._a.png": b"resource fork",
        "folder/": b"",
        "z.png": png(4),
    }
    for kind in (zipped, tarred):
        with serve(image_limit_bytes=100_000, data=serve_folder(serve, kind.__name__)) as client:
            client.put("/v1/collections/parts").raise_for_status()
            result = send(client, kind({name: data for name, data in files.items() if data}))["result"]
            assert codes(result) == {
                "text.txt": "image_unreadable",
                "inner.zip": "archive_nested",
                "inner.tar": "archive_nested",
                "large.png": "image_too_large",
            }
            counts = {name: result[name] for name in service.COUNTS}
            assert counts == {"created": 2, "updated": 0, "duplicate": 0, "refused": 4, "ignored": 2}
            assert set(images(client)) == {"a.png", "z.png"}
            job = client.get("/v1/jobs", params={"kind": "import"}).json()["jobs"][0]["id"]
            page = client.get(f"/v1/collections/parts/imports/{job}", params={"limit": 3}).json()
            rest = client.get(f"/v1/collections/parts/imports/{job}", params={"cursor": page["next"]}).json()
            assert page["refused"] == 4
            assert page["problems"] + rest["problems"] == result["problems"]
            assert rest["next"] is None
            lines = client.get(result["report"]).text.splitlines()
            assert [json.loads(line) for line in lines] == result["problems"]
            assert client.get(f"/v1/collections/parts/imports/{'0' * 32}").json()["code"] == "import_unknown"


def serve_folder(serve: Serve, name: str) -> Path:
    with serve() as client:
        return core_of(client).settings.data / name


TRICKS = ("/etc/a.png", "../a.png", "x/../../a.png", "..\\a.png", "C:\\a.png", "C:a.png", "\\\\host\\a.png", "x/..")


@pytest.mark.parametrize("name", TRICKS)
def test_paths_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        plain_name(name)


def test_names_that_only_look_odd_are_taken() -> None:
    assert plain_name("./a//b/./c..png") == "a/b/c..png"
    assert plain_name("größe/ümlaut 🙂.png") == "größe/ümlaut 🙂.png"
    assert plain_name(os.fsdecode(b"caf\xe9.png")) == "caf\ufffd.png"


def test_path_tricks_links_and_devices_in_archives(shared: TestClient) -> None:
    odd = []
    kinds = {
        "s": tarfile.SYMTYPE,
        "h": tarfile.LNKTYPE,
        "c": tarfile.CHRTYPE,
        "b": tarfile.BLKTYPE,
        "f": tarfile.FIFOTYPE,
    }
    for name, kind in kinds.items():
        info = tarfile.TarInfo(f"{name}.png")
        info.type, info.linkname = kind, "/etc/passwd"
        odd.append(info)
    result = send(shared, tarred({"../up.png": png(1), "/abs.png": png(2), "good.png": png(3)}, *odd))["result"]
    assert codes(result) == {
        "../up.png": "path_refused",
        "/abs.png": "path_refused",
        "s.png": "link_refused",
        "h.png": "link_refused",
        "c.png": "device_refused",
        "b.png": "device_refused",
        "f.png": "device_refused",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link, device = zipfile.ZipInfo("s.png"), zipfile.ZipInfo("c.png")
        link.external_attr, device.external_attr = 0o120777 << 16, 0o020666 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr(device, "")
        archive.writestr("../up.png", png(1))
        archive.writestr("good.png", png(3))
    result = send(shared, buffer.getvalue())["result"]
    assert codes(result) == {"s.png": "link_refused", "c.png": "device_refused", "../up.png": "path_refused"}
    assert set(images(shared)) == {"good.png"}


def test_an_encrypted_entry_is_reported(shared: TestClient) -> None:
    archive = bytearray(zipped({"secret.png": png(1), "open.png": png(2)}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = archive.index(signature) + offset
        archive[place] |= 1
    result = send(shared, bytes(archive))["result"]
    assert codes(result) == {"secret.png": "archive_encrypted"}
    assert set(images(shared)) == {"open.png"}


def names_of(archive: bytes, folder: Path, limits: Limits) -> list[str]:
    path = folder / "archive"
    path.write_bytes(archive)
    source = open_archive(path, limits)
    source.scan(lambda: None)
    return [one.name for one in source.entries(None, set().discard) if one.data is not None]


@pytest.mark.parametrize("kind", ["zip", "gzip", "bzip2"])
def test_bombs_are_refused_before_anything_is_read(tmp_path: Path, kind: str) -> None:
    files = {f"{number}.png": bytes(2**19) for number in range(40)}  # 20 MiB of zeros
    packed = {
        "zip": lambda: zipped(files, zipfile.ZIP_DEFLATED),
        "gzip": lambda: gzip.compress(tarred(files)),
        "bzip2": lambda: bz2.compress(tarred(files)),
    }[kind]()
    assert len(packed) < 100_000
    with pytest.raises(TooLarge) as caught:
        names_of(packed, tmp_path, LIMITS)
    assert caught.value.code == "archive_bomb"
    generous = Limits(file_bytes=2**20, unpacked_bytes=2**30, ratio=1e6, entries=1000)
    found = names_of(packed, tmp_path, generous)
    assert len(found) == 40, "the limit is what refused it"


def test_the_limits_of_size_and_count(tmp_path: Path) -> None:
    for pack in (zipped, tarred):
        for limits, code in (
            (Limits(2**20, 5000, 200, 1000), "archive_bomb"),
            (Limits(2**20, 2**30, 200, 2), "archive_too_many_entries"),
        ):
            with pytest.raises(TooLarge) as caught:
                names_of(pack(pictures(3)), tmp_path, limits)
            assert caught.value.code == code
        assert len(names_of(pack(pictures(3)), tmp_path, Limits(2**20, 2**20, 200, 3))) == 3


def test_one_packed_entry_that_unpacks_too_far_is_left_out(tmp_path: Path) -> None:
    files = {"bomb.png": bytes(2**20 + 2**19), "a.png": png(1)}
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(files, zipfile.ZIP_DEFLATED))
    found = list(open_archive(path, Limits(2**22, 2**30, 200, 10)).entries(None, set().discard))
    assert [(one.name, (one.problem or {}).get("code")) for one in found] == [
        ("bomb.png", "archive_bomb"),
        ("a.png", None),
    ]


def test_sizes_that_lie_do_not_bring_more_bytes(tmp_path: Path) -> None:
    archive = bytearray(zipped({"a.png": bytes(5000), "b.png": png(1)}, zipfile.ZIP_DEFLATED))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = archive.index(signature) + offset
        archive[place : place + 4] = struct.pack("<I", 10)
    path = tmp_path / "a.zip"
    path.write_bytes(archive)
    found = list(open_archive(path, LIMITS).entries(None, set().discard))
    assert found[0].data is None
    assert (found[0].problem or {})["code"] == "archive_entry_damaged"
    assert found[1].data == png(1)


def test_a_header_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    archive = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))
    with pytest.raises(Invalid, match="longer than any should be"):
        names_of(archive, tmp_path, LIMITS)


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: gzip.compress(tarred(files))])
def test_an_archive_cut_off_anywhere_is_refused_as_a_whole(tmp_path: Path, pack: Any) -> None:
    archive = pack(pictures(4)).rstrip(b"\0")  # without what a tar is filled up with
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(Invalid) as caught:
            names_of(archive[: int(len(archive) * share) // 512 * 512], tmp_path, LIMITS)
        assert caught.value.code == "archive_damaged"


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    archive = bytearray(tarred(pictures(4)))
    second = archive.index(b"001.png")
    archive[second] ^= 1
    with pytest.raises(Invalid) as caught:
        names_of(bytes(archive), tmp_path, LIMITS)
    assert caught.value.code == "archive_damaged"


def test_what_is_no_archive_is_refused_at_once(shared: TestClient) -> None:
    path = "/v1/collections/parts/images/import"

    def refusal(**request: Any) -> tuple[int, str]:
        answer = shared.post(path, **request)
        return answer.status_code, answer.json()["code"]

    assert refusal(files={"archive": ("a.png", png(1))}) == (422, "archive_unknown")
    assert refusal(files={"file": ("a.zip", zipped({}))}) == (422, "field_unknown")
    assert refusal(files={"archive": ("a.zip", b"")}) == (422, "body_empty")
    assert refusal(json={}) == (422, "source_missing")
    assert refusal(json={"folder": "/tmp"}) == (409, "folder_not_allowed")
    assert refusal(content=b"x", headers={"Content-Type": "text/plain"}) == (415, "unsupported_media_type")
    assert refusal(files={"archive": ("a", zipped({}))}, data={"lable": "x"}) == (422, "invalid")
    assert refusal(files={"archive": ("a", zipped({}))}, data={"role": "x"}, params={"role": "y"}) == (
        422,
        "conflicting_parameters",
    )
    cut = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a"\r\n\r\nPK'
    assert refusal(content=cut, headers={"Content-Type": "multipart/form-data; boundary=x"}) == (
        422,
        "multipart_malformed",
    )
    missing = shared.post("/v1/collections/none/images/import", files={"archive": ("a", zipped({}))})
    assert missing.json()["code"] == "collection_unknown"
    assert list((core_of(shared).settings.data / "uploads").iterdir()) == [], "nothing refused stays on disk"


def test_the_upload_limit_is_its_own(serve: Serve) -> None:
    archive = zipped(pictures(2))
    with serve(body_limit_bytes=1024, import_limit_archive_bytes=len(archive) + 10) as client:
        client.put("/v1/collections/parts").raise_for_status()
        assert send(client, archive)["result"]["created"] == 2
        answer = client.post("/v1/collections/parts/images/import", files={"archive": ("a", zipped(pictures(3)))})
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
        assert list((core_of(client).settings.data / "uploads").iterdir()) == []


def test_a_folder_must_be_allowed(serve: Serve, tmp_path: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    for one in (allowed / "good", allowed / "bad", outside):
        one.mkdir(parents=True)
    (allowed / "good" / "b.png").write_bytes(png(1))
    (allowed / "good" / os.fsdecode(b"caf\xe9.png")).write_bytes(png(2))
    (allowed / "bad" / "a.png").write_bytes(png(3))
    (outside / "c.png").write_bytes(png(4))
    (allowed / "link.png").symlink_to(outside / "c.png")
    (allowed / "linked").symlink_to(outside)
    os.mkfifo(allowed / "pipe.png")
    (allowed / "metadata.jsonl").write_text('{"file_name": "bad/a.png", "role": "anomalous"}\n')
    with serve(import_folders=(allowed,)) as client:
        client.put("/v1/collections/parts").raise_for_status()
        path = "/v1/collections/parts/images/import"
        for folder, status, code in (
            (outside, 409, "folder_not_allowed"),
            (allowed / ".." / "outside", 409, "folder_not_allowed"),
            (allowed / "linked", 409, "folder_not_allowed"),
            (allowed / "none", 404, "folder_unknown"),
            ("allowed", 422, "folder_not_absolute"),
        ):
            answer = client.post(path, json={"folder": str(folder)})
            assert (answer.status_code, answer.json()["code"]) == (status, code), folder
        job = client.post(path, json={"folder": str(allowed), "label_from_folder": True}, params={"wait": 60}).json()
        result = job["result"]
        assert codes(result) == {
            "link.png": "link_refused",
            "linked": "link_refused",
            "pipe.png": "device_refused",
        }
        found = images(client)
        assert {name: (one["label"], one["role"]) for name, one in found.items()} == {
            "bad/a.png": ("bad", "anomalous"),
            "good/b.png": ("good", "normal"),
            "good/caf\ufffd.png": ("good", "normal"),
        }


def test_a_folder_goes_on_behind_a_place(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "b.x", "c/d/e", "B", "é"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    source = Folder(tmp_path, LIMITS)
    whole = list(source.entries(None, set().discard))
    assert [one.name for one in whole] == ["B.png", "a.png", "b/1.png", "b/2.png", "b.x.png", "c/d/e.png", "é.png"]
    for place, entry in enumerate(whole):
        seen: list[str] = []
        rest = list(source.entries(json.loads(json.dumps(entry.place)), seen.append))
        assert rest == whole[place + 1 :]
        assert len(seen) == len(whole)


@pytest.fixture
def core(settings: Settings) -> Iterator[Core]:
    core = open_core(settings.model_copy(update={"import_folders": (settings.data.parent,)}))
    yield core
    close_core(core)


class Killed(BaseException):
    """What no handler expects."""


def submit_folder(core: Core, files: Files) -> str:
    folder = core.settings.data.parent / "pictures"
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    job, _ = service.submit_import(core, ANYBODY, "parts", None, {"folder": str(folder)}, Key("", None))
    job_id: str = job["id"]
    return job_id


@pytest.mark.parametrize("moment", ["before the batch", "between batch and note", "after the note"])
def test_a_killed_import_goes_on_and_counts_each_image_once(
    core: Core, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(service, "BATCH_IMAGES", 4)
    put_collection(core, "parts", {}, None)
    job_id = submit_folder(core, {**pictures(10), "005.txt": b"no image"})
    sent: list[list[str]] = []
    add_images, store = service.add_images, service.repository.store

    def adding(core: Core, name: str, uploads: Any, *rest: Any) -> Any:
        if moment == "before the batch" and len(sent) == 1:
            raise Killed
        sent.append([one.filename for one in uploads])
        return add_images(core, name, uploads, *rest)

    def storing(session: Any, job_id: str, position: Any, counts: Any) -> None:
        if moment == "between batch and note" and len(sent) == 2:
            raise Killed
        if moment == "after the note" and len(sent) == 3:
            raise Killed
        store(session, job_id, position, counts)

    with monkeypatch.context() as patch:
        patch.setattr(service, "add_images", adding)
        patch.setattr(service.repository, "store", storing)
        with pytest.raises(Killed):
            Runner(core, HANDLERS, lease_s=0.0).run_one()
    killed_after = len(sent)
    with monkeypatch.context() as patch:
        patch.setattr(
            service, "add_images", lambda *given: sent.append([one.filename for one in given[2]]) or add_images(*given)
        )
        assert Runner(core, HANDLERS).run_one()
    job = get_job(core, job_id)
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
    counts = {name: job["result"][name] for name in service.COUNTS}
    assert counts == {"created": 10, "updated": 0, "duplicate": 0, "refused": 1, "ignored": 0}
    again = {name for batch in sent[killed_after:] for name in batch}
    assert "000.png" not in again, "the first batch was noted and is not sent again"
    assert core.idempotency._answered(service.Request("import " + job_id, "x", "x")) is None
    assert len(core.shelf.get("parts").entries) == 10


def test_cancelling_keeps_what_was_imported_and_deletes_the_upload(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH_IMAGES", 2)
    put_collection(core, "parts", {}, None)
    job_id = submit_folder(core, pictures(8))
    add_images = service.add_images

    def adding(*given: Any) -> Any:
        answer = add_images(*given)
        cancel(core, job_id)
        return answer

    monkeypatch.setattr(service, "add_images", adding)
    clock = iter(range(0, 100000, 10))
    assert Runner(core, HANDLERS, monotonic=lambda: float(next(clock))).run_one()
    assert get_job(core, job_id)["state"] == "cancelled"
    assert len(core.shelf.get("parts").entries) == 2
    assert service.show_import(core, "parts", job_id, 0, 10)["created"] == 2


def test_a_collection_made_again_meanwhile_gets_nothing(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    put_collection(core, "parts", {}, None)
    job_id = submit_folder(core, pictures(3))
    add = service.add_images

    def at_the_last_moment(*given: Any) -> Any:
        delete_collection(core, "parts", None)
        put_collection(core, "parts", {}, None)
        return add(*given)

    monkeypatch.setattr(service, "add_images", at_the_last_moment)
    assert Runner(core, HANDLERS).run_one()
    assert core.shelf.get("parts").counts()["normal"] == 0
    with pytest.raises(NotFound):
        get_job(core, job_id)


def test_the_same_key_is_the_same_import(shared: TestClient) -> None:
    def once(archive: bytes) -> Any:
        return shared.post(
            "/v1/collections/parts/images/import",
            files={"archive": ("a.zip", archive)},
            headers={"Idempotency-Key": "one"},
            params={"wait": 60},
        )

    archive = zipped(pictures(2))
    first, second = once(archive), once(archive)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert once(zipped(pictures(3))).json()["code"] == "idempotency_key_reused"
    assert list((core_of(shared).settings.data / "uploads").iterdir()) == []


def test_left_over_uploads_go_after_an_hour(tmp_path: Path) -> None:
    for name in ("old", "old and wanted", "young"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("old", "old and wanted"):
        past = (tmp_path / name).stat().st_mtime - LEFT_OVER_S - 1
        os.utime(tmp_path / name, (past, past))
    sweep(tmp_path, {"old and wanted"})
    assert {one.name for one in tmp_path.iterdir()} == {"old and wanted", "young"}
