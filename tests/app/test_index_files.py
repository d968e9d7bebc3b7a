"""A state that goes on from a file equals one that was read from the record, and no wrong file is ever believed."""

import errno
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.collecting.repository import prune_deletions
from app.core import Core
from app.db.tables import CollectionRow, IndexFileRow, VectorRow
from app.indexing import files, service
from app.indexing.files import LEFT_OVER_S
from app.indexing.repository import Standing
from app.main import create_app
from app.settings import Settings
from app.shelf import CollectionState, Shelf
from benchmarks.scale import ScalePlan, fill
from index import structures, write_arrays
from tests.app.test_shelf import PICTURES, C, contents, step
from tests.conftest import add


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Files are worth it from the first image on, and are written when a test asks for them."""
    return settings.model_copy(update={"index_min_images": 1, "index_every_s": 0})


def core_of(client: TestClient) -> Core:
    return client.app.state.core


def indexed(client: TestClient, kind: str = "compact") -> dict:
    """Run the job that writes a file; its result."""
    answer = client.post(f"{C}/{kind}", params={"wait": 30})
    assert answer.json()["state"] == "succeeded", answer.text
    return answer.json()["result"]


def from_files(core: Core) -> CollectionState:
    return Shelf(core.database, files=core.index_files).load("c")


def from_record(core: Core) -> CollectionState:
    return Shelf(core.database).load("c")


def file_of(core: Core) -> Path:
    (path,) = core.index_files.folder.glob("*.index")
    return path


def poison(core: Core) -> None:
    """Change every vector in the record behind everybody's back: whoever reads them now reads zeros."""
    with core.database.write() as session:
        session.execute(update(VectorRow).values(vector=bytes(512 * 4), checksum=None))


def same(one: CollectionState, other: CollectionState) -> bool:
    mine, theirs = contents(one), contents(other)
    assert mine.pop("calibration") == pytest.approx(theirs.pop("calibration"), rel=1e-6)
    return mine == theirs


@pytest.mark.parametrize("seed", range(3))
def test_a_file_and_what_came_since_equal_the_record(client: TestClient, seed: int) -> None:
    chance = random.Random(seed)
    core = core_of(client)
    client.put(C, json={"metric": chance.choice(["l2", "cosine"])}).raise_for_status()
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    for _ in range(12):
        step(client, chance)
    indexed(client)
    assert same(from_files(core), from_record(core))
    for _ in range(12):
        step(client, chance)
    assert same(from_files(core), from_record(core))
    assert same(core.shelf.get("c"), from_record(core))


def test_a_start_reads_the_file_and_not_the_record(client: TestClient) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    poison(core)
    add(client, "c", {"later": PICTURES[7]})
    loaded = from_files(core)
    pks = [loaded.entries.find(f"i{number}") for number in range(6)]
    assert np.abs(loaded.vectors(pks)).max() > 0
    # The control: what is read from the record is zeros, but for the image that came after.
    plain = from_record(core)
    assert np.abs(plain.vectors(pks)).max() == 0
    later = [plain.entries.find("later")]
    assert np.array_equal(plain.vectors(later), loaded.vectors(later)) and np.abs(plain.vectors(later)).max() > 0


def test_a_restarted_service_answers_as_before(client: TestClient, settings: Settings) -> None:
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    asked = {"json": {"ids": ["i1", "i3"]}}
    before = [client.post(f"{C}/{what}", **asked).json() for what in ("anomaly", "query")]
    poison(core_of(client))
    with TestClient(create_app(settings)) as again:
        assert [again.post(f"{C}/{what}", **asked).json() for what in ("anomaly", "query")] == before


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.9999])
def test_a_flipped_byte_anywhere_sets_the_file_aside(client: TestClient, share: float) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    path = file_of(core)
    bad = bytearray(path.read_bytes())
    bad[int(share * len(bad))] ^= 1
    path.write_bytes(bad)
    assert same(from_files(core), from_record(core))
    assert not path.exists() and path.with_name(path.name + ".damaged").exists()
    assert indexed(client)["file"]["sequence"] == core.shelf.get("c").sequence  # the next job writes a good one
    assert same(from_files(core), from_record(core))


def test_a_damaged_file_that_another_process_set_aside_first_is_no_error(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    path = file_of(core)
    path.write_bytes(path.read_bytes()[:-1])

    def gone(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "rename", gone)
    assert same(from_files(core), from_record(core))


@pytest.mark.parametrize("change", ["cut", "longer", "empty", "another file", "gone"])
def test_a_file_that_is_not_the_one_that_was_written_is_not_believed(client: TestClient, change: str) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    path = file_of(core)
    good = path.read_bytes()
    if change == "another file":  # whole in itself, but of another moment
        add(client, "c", {"more": PICTURES[8]})
        indexed(client)
        (newer,) = set(core.index_files.folder.glob("*.index")) - {path}
        newer.write_bytes(good)
    elif change == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": good[:-1], "longer": good + b"\0", "empty": b""}[change])
    assert same(from_files(core), from_record(core))


def test_a_file_that_the_record_does_not_vouch_for_is_never_read(client: TestClient) -> None:
    """As after the database was brought back from a backup that is older than the file."""
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    poison(core)
    with core.database.write() as session:
        session.delete(session.scalars(select(IndexFileRow)).one())
    assert np.abs(from_files(core).vectors([from_files(core).entries.find("i0")])).max() == 0


def test_a_file_from_before_pruned_deletions_is_of_no_use(client: TestClient) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    client.delete(f"{C}/images/i2").raise_for_status()
    with core.database.write() as session:
        row = session.scalars(select(CollectionRow)).one()
        row.pruned_sequence = row.sequence
        assert prune_deletions is not None
    assert same(from_files(core), from_record(core))
    assert from_files(core).entries.find("i2") is None


def test_another_metric_needs_another_file_and_another_k_does_not(client: TestClient) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    client.patch(C, json={"k": 3}).raise_for_status()
    assert same(from_files(core), from_record(core))
    poison(core)
    assert np.abs(from_files(core).vectors([1])).max() > 0
    client.patch(C, json={"metric": "l2"}).raise_for_status()
    assert np.abs(from_files(core).vectors([1])).max() == 0


def test_a_serving_state_changes_over_without_a_pause(client: TestClient) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    served = core.shelf.get("c")
    indexed(client)
    until = time.monotonic() + 20
    while core.shelf.get("c") is served and time.monotonic() < until:
        assert client.post(f"{C}/query", json={"id": "i1"}).status_code == 200
    assert core.shelf.get("c") is not served
    assert same(core.shelf.get("c"), from_record(core))


def test_what_cut_short_writes_left_goes_with_the_next_file(client: TestClient) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    indexed(client)
    first = file_of(core)
    left = first.with_name(f"{core.shelf.get('c').id}-unnamed-1.index.partial")
    left.write_bytes(b"half")
    other = first.with_name("4711-unnamed-1.index.partial")
    other.write_bytes(b"of a collection that is gone")
    for path in (left, other):
        long_ago = time.time() - LEFT_OVER_S - 1
        os.utime(path, (long_ago, long_ago))
    for number in range(service.repository.FILES_KEPT + 1):
        add(client, "c", {f"more{number}": PICTURES[number]})
        indexed(client)
    assert not left.exists() and not first.exists()
    assert len(list(core.index_files.folder.glob("*.index"))) == service.repository.FILES_KEPT
    assert other.exists()
    client.delete(C)
    service.submit_due(core, {})
    assert list(core.index_files.folder.iterdir()) == []


def test_jobs_that_write_at_the_same_time_do_not_take_each_others_files(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when a job's lease ran out while the disk was full: it still writes, and has been begun again elsewhere.
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    state = from_record(core)

    def write_beside(path: Path, *given: Any) -> int:
        monkeypatch.setattr(files, "write_arrays", write_arrays)
        size = write_arrays(path, *given)
        other = core.index_files.write(state)
        core.index_files.prune(state.id, [other.digest])
        core.index_files.prune_collections(set())
        return size

    monkeypatch.setattr(files, "write_arrays", write_beside)
    written = core.index_files.write(state)
    assert core.index_files.path(state.id, written.digest).exists()
    assert len(list(core.index_files.folder.iterdir())) == 1


def test_a_write_that_fails_leaves_nothing_on_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_of(client)
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})

    def half(path: Path, *_given: Any) -> int:
        path.with_name(path.name + ".partial").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(files, "write_arrays", half)
    with pytest.raises(OSError, match="no space"):
        core.index_files.write(from_record(core))
    assert list(core.index_files.folder.iterdir()) == []


def test_jobs_are_queued_for_collections_that_changed_much(client: TestClient) -> None:
    core, seen = core_of(client), {}
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    assert service.submit_due(core, seen) == ["c"]
    until = time.monotonic() + 20
    while not list(core.index_files.folder.glob("*.index")) and time.monotonic() < until:
        time.sleep(0.01)
    assert service.submit_due(core, {}) == []
    add(client, "c", {"one more": PICTURES[7]})
    assert service.submit_due(core, seen) == []
    client.post(f"{C}/images/delete", json={"ids": ["i1", "i2"]}).raise_for_status()
    assert service.submit_due(core, seen) == ["c"]
    here = Standing(collection_id=1, name="c", images=900, changes=900, has_file=False)
    assert service.is_due(here, 900) and not service.is_due(here, 901)  # the record is as quick
    assert service.is_due(replace(here, images=10, changes=1000, has_file=True), 900)


def test_a_collection_that_is_being_restored_is_looked_at_when_it_is_there(client: TestClient) -> None:
    core, seen = core_of(client), {}
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    name = "/restoring/job"
    for old, new, due in (("c", name, []), (name, "c", ["c"])):
        with core.database.write() as session:
            session.execute(update(CollectionRow).where(CollectionRow.name == old).values(name=new))
        assert service.submit_due(core, seen) == due


def test_a_collection_that_goes_while_it_is_looked_at_keeps_no_other_waiting(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = core_of(client)
    for name in ("gone", "c"):
        add(client, name, {f"i{number}": PICTURES[number] for number in range(6)})
    submit = service.submit

    def gone_first(core: Core, kind: str, name: str, parameters: dict) -> object:
        client.delete("/v1/collections/gone")
        return submit(core, kind, name, parameters)

    monkeypatch.setattr(service, "submit", gone_first)
    assert service.submit_due(core, {}) == ["c"]


def test_compacting_says_what_is_there_and_the_index_can_be_looked_at(client: TestClient) -> None:
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    client.post(f"{C}/images/delete", json={"ids": ["i1", "i2"]}).raise_for_status()
    result = indexed(client)
    assert (result["alive"], result["dead"]) == (4, 0)
    shown = client.get(f"{C}/index").json()
    assert shown["exact"] is True and shown["parts"]["bank"]["alive"] == 4
    assert shown["parts"]["bank"]["structure"] == "flat"
    assert shown["file"]["sequence"] == shown["sequence"] == result["sequence"]
    assert client.post("/v1/collections/none/compact").status_code == 404
    assert client.get("/v1/collections/none/index").status_code == 404


def test_a_running_service_writes_files_by_itself(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"index_every_s": 0.05}))) as client:
        core = core_of(client)
        add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
        until = time.monotonic() + 30
        while client.get(f"{C}/index").json()["file"] is None and time.monotonic() < until:
            time.sleep(0.02)
        assert client.get(f"{C}/index").json()["file"] is not None
        assert same(from_files(core), from_record(core))


@pytest.fixture
def approximate(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A service whose collection is searched through a graph."""
    monkeypatch.setattr(structures, "CODED_ROWS", 100)
    monkeypatch.setattr(structures, "EXACT_NUMBERS", 1000)
    fill(core_of(client), ScalePlan(rows=3000, centres=50), "c")
    assert indexed(client)["built"]["bank"]["structure"] == "hnsw"
    until = time.monotonic() + 30
    while client.get(f"{C}/index").json()["exact"] and time.monotonic() < until:
        time.sleep(0.01)
    return client


def test_an_approximate_answer_says_so_and_an_exact_one_can_be_had(approximate: TestClient) -> None:
    core = core_of(approximate)
    vectors = from_record(core).vectors(np.arange(1, 41))
    shares = []
    for vector in vectors:
        asked = {"vector": vector.tolist(), "k": 10}
        rough = approximate.post(f"{C}/query", json=asked).json()
        true = approximate.post(f"{C}/query", json={**asked, "exact": True}).json()
        assert (rough["exact"], true["exact"]) == (False, True)
        names = [[one["id"] for one in answer["results"][0]] for answer in (rough, true)]
        # What a scan of all rows finds, by ids and by distances.
        plain = from_record(core)
        found = plain.nearest(vector[None], 10)
        assert names[1] == [plain.entries[pk].image_id for pk in found.ids[0].tolist()]
        shares.append(len(set(names[0]) & set(names[1])) / 10)
    assert np.mean(shares) >= 0.95
    parts = approximate.get(f"{C}/index").json()["parts"]
    assert parts["bank"]["recall"] >= 0.98 and parts["bank"]["alive"] == 3000


def test_calibration_and_scores_use_the_same_structure(approximate: TestClient) -> None:
    state = core_of(approximate).shelf.get("c")
    kept = state.dn2.calibration()
    k = state.settings.k
    # Scored against the bank without itself through that very index, an image gets its calibration score.
    again = state.dn2.score(state.vectors(kept.ids[:200]), k=k, exclude=kept.ids[:200])
    assert np.mean(again.score == kept.scores[:200]) > 0.97
    result = approximate.post(f"{C}/calibrate", params={"wait": 60}).json()
    assert result["state"] == "succeeded" and result["result"]["kept"]["equal"] is None


def test_what_goes_from_an_approximate_index_is_gone_and_compact_counts_it(approximate: TestClient) -> None:
    state = core_of(approximate).shelf.get("c")
    vector = state.vectors([7])[0].tolist()
    names = [f"part-{number:09d}" for number in range(1, 401)]
    approximate.post(f"{C}/images/delete", json={"ids": names}).raise_for_status()
    found = approximate.post(f"{C}/query", json={"vector": vector, "k": 20}).json()["results"][0]
    assert len(found) == 20 and not set(names) & {one["id"] for one in found}
    bank = approximate.get(f"{C}/index").json()["parts"]["bank"]
    assert (bank["alive"], bank["dead"]) == (2600, 400)
    result = indexed(approximate)
    assert (result["alive"], result["dead_before"], result["dead"]) == (2600, 400, 0)
    add(approximate, "c", {"new": PICTURES[3]})
    state = core_of(approximate).shelf.get("c")
    found = approximate.post(f"{C}/query", json={"vector": state.vectors([state.entries.find("new")])[0].tolist()})
    assert found.json()["results"][0][0]["id"] == "new"
