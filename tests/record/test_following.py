"""What following the record costs, and how much memory collections may take."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event, insert, update

from app import shelf
from app.clock import utc_now
from app.collections import service as collections
from app.core import Core
from app.db.engine import Database
from app.db.errors import DatabaseUnsupported
from app.db.tables import CollectionRow, ImageRow, RuntimeRow, VectorRow
from app.errors import Busy, NotFound
from app.groups import service as groups
from app.groups.schemas import RegisterParameters
from app.images import service as images
from app.images.schemas import ChangeParameters, Selection
from app.memory import memory_bytes
from app.replay import PAGE_ROWS
from app.shelf import LOADING_LOCKS, NEWEST, Shelf
from tests.record.conftest import OpenCore

WIDTH = 512


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[str]]:
    """The statements that are sent while the block runs."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def filled(core: Core, name: str, count: int, role: Callable[[int], str] = lambda _: "normal") -> int:
    """A collection with so many images of random vectors, written straight into the record; its id."""
    collections.put_collection(core, name, {}, None)
    now = utc_now()
    vectors = np.random.default_rng(count).standard_normal((count, WIDTH)).astype("<f4")
    with core.database.write() as session:
        row = collections.repository.require(session, name, locked=True)
        runtime = session.scalar(insert(RuntimeRow).values(digest=name, description={}).returning(RuntimeRow.id))
        facts = {
            "collection_id": row.id, "sha256": "0" * 64, "format": "PNG", "width": 1,
            "height": 1, "size_bytes": 1, "created_at": now, "updated_at": now,
        }  # fmt: skip
        rows = [
            {**facts, "image_id": f"{name}-{n}", "role": role(n), "details": {"n": n}, "sequence": 1 + n // 10}
            for n in range(count)
        ]
        pks = session.scalars(insert(ImageRow).returning(ImageRow.id, sort_by_parameter_order=True), rows).all()
        session.execute(
            insert(VectorRow),
            [
                {"image_pk": pk, "embedding_id": row.embedding_id, "runtime_id": runtime, "vector": vector.tobytes()}
                for pk, vector in zip(pks, vectors, strict=True)
            ],
        )
        row.sequence = 1 + count // 10
        return row.id


def test_a_large_collection_is_read_in_pages_and_is_what_the_record_says(core: Core) -> None:
    roles = ("normal", "normal", "anomalous", "unlabelled", "example")
    count = 2 * PAGE_ROWS + 77
    filled(core, "big", count, role=lambda n: roles[n % 5])
    state = core.shelf.get("big")
    vectors = np.random.default_rng(count).standard_normal((count, WIDTH)).astype("<f4")
    assert state.counts() == {
        role: sum(roles[n % 5] == role for n in range(count))
        for role in ("normal", "anomalous", "unlabelled", "example")
    }
    asked = [0, 1, 2, 3, 4, PAGE_ROWS - 1, PAGE_ROWS, 2 * PAGE_ROWS, count - 1]
    stored = state.vectors([state.entry(f"big-{n}").pk for n in asked])
    np.testing.assert_array_equal(stored, vectors[asked])
    assert [state.entry(f"big-{n}").metadata for n in asked] == [{"n": n} for n in asked]
    assert state.dn2.bank.memory_bytes < 1.3 * (len(state.dn2.bank) * 2 * (WIDTH * 4 + 24)), (
        "room for no more than is there"
    )


def test_an_unchanged_collection_costs_one_statement(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(core, "c", 20)
    state = core.shelf.get("c")
    looks: list[str] = []
    row = core.database.row

    def noted(statement: str, **parameters: Any) -> tuple[Any, ...] | None:
        looks.append(statement)
        return row(statement, **parameters)

    monkeypatch.setattr(core.database, "row", noted)
    with statements_of(core.database.engine) as sent:
        assert core.shelf.get("c") is state
    assert looks == [NEWEST]
    assert len(sent) == (0 if core.database.is_sqlite else 1), "SQLite's driver is asked without SQLAlchemy"


def test_groups_are_read_only_when_a_group_changed(core: Core, open_another: OpenCore) -> None:
    filled(core, "c", 20)
    for name in ("g", "h"):
        groups.put_group(core, "c", name, [], RegisterParameters(ids=[f"c-{n}" for n in range(4)]))
    other = open_another()
    state = other.shelf.get("c")
    assert set(state.groups) == {"g", "h"}

    images.change_image(core, "c", "c-1", ChangeParameters(metadata={"x": 1}))
    with statements_of(other.database.engine) as sent:
        assert other.shelf.get("c") is state
    assert state.entry("c-1").metadata == {"n": 1, "x": 1}
    assert not any("group_members" in one for one in sent)

    images.delete_images(core, "c", Selection(ids=["c-1"]))
    with statements_of(other.database.engine) as sent:
        other.shelf.get("c")
    assert not any("group_members" in one for one in sent)
    assert [state.entries[pk].image_id for pk in state.groups["g"].members] == ["c-0", "c-2", "c-3"]

    groups.put_group(core, "c", "h", [], RegisterParameters(ids=["c-9"]))
    with statements_of(other.database.engine) as sent:
        other.shelf.get("c")
    assert sum("group_members" in one for one in sent) == 1, "and this is how it looks when one changed"
    kept, untouched = state.groups["h"].members, state.groups["g"]
    assert [state.entries[pk].image_id for pk in kept] == ["c-9"]
    assert len(untouched.members) == 3


def test_new_facts_of_an_image_leave_vectors_and_calibration_alone(core: Core) -> None:
    filled(core, "c", 40)
    state = core.shelf.get("c")
    before = state.dn2.calibration(2)
    images.change_image(core, "c", "c-3", ChangeParameters(metadata={"x": 1}, label="scratch"))
    assert core.shelf.get("c") is state
    assert state.entry("c-3").label == "scratch"
    assert state.dn2.calibration(2) is before
    images.change_image(core, "c", "c-3", ChangeParameters(group="part-7"))
    assert core.shelf.get("c").dn2.calibration(2) is not before, "a group changes what may vouch for what"


def test_a_threshold_changes_without_reading_the_images_again(core: Core, open_another: OpenCore) -> None:
    filled(core, "c", 20)
    other = open_another()
    state = other.shelf.get("c")
    collections.patch_collection(core, "c", {"false_alarm_rate": 0.25, "neighbours": 9}, None)
    assert other.shelf.get("c") is state
    assert (state.settings.false_alarm_rate, state.settings.neighbours) == (0.25, 9)
    collections.patch_collection(core, "c", {"metric": "l2"}, None)
    afresh = other.shelf.get("c")
    assert afresh is not state
    assert str(afresh.dn2.params.metric) == "l2"


def test_another_vector_of_the_same_bytes_is_taken_over(core: Core, database: Database) -> None:
    """As after computing it with another engine: new facts are told from new vectors by looking at both."""
    filled(core, "c", 5)
    state = core.shelf.get("c")
    pk = state.entry("c-2").pk
    vector = np.full(WIDTH, 0.5, "<f4")
    with database.write() as session:
        session.execute(update(CollectionRow).values(sequence=CollectionRow.sequence + 1))
        session.execute(update(ImageRow).where(ImageRow.id == pk).values(sequence=state.sequence + 1))
        session.execute(
            update(VectorRow).where(VectorRow.image_pk == pk).values(vector=vector.tobytes(), checksum=None)
        )
    np.testing.assert_array_equal(core.shelf.get("c").vectors([pk])[0], vector)


# --- memory ---


def size_of_one(core: Core) -> int:
    shelf = Shelf(core.database)
    shelf.get("c0")
    return shelf.memory()[1]


@pytest.fixture
def five(core: Core) -> Core:
    for number in range(5):
        filled(core, f"c{number}", 30)
    return core


def kept(shelf: Shelf, names: list[str]) -> list[str]:
    """Which of these are in memory: getting them costs one statement."""
    return [name for name in names if name in shelf._states]


def test_the_least_recently_used_collections_make_room(five: Core) -> None:
    names = [f"c{number}" for number in range(5)]
    shelf = Shelf(five.database, budget_bytes=int(3.5 * size_of_one(five)))
    for name in names[:3]:
        shelf.get(name)
    assert kept(shelf, names) == ["c0", "c1", "c2"]
    shelf.get("c0")
    shelf.get("c3")
    assert kept(shelf, names) == ["c0", "c2", "c3"]
    count, total = shelf.memory()
    assert count == 3
    assert total <= 3.5 * size_of_one(five)
    everything = Shelf(five.database)
    for name in names:
        everything.get(name)
    assert everything.memory() == (5, pytest.approx(5 * size_of_one(five), rel=0.01))


def test_who_looks_at_a_collection_keeps_it(five: Core) -> None:
    shelf = Shelf(five.database, budget_bytes=int(1.5 * size_of_one(five)))
    state = shelf.get("c0")
    with state.lock.read():
        shelf.get("c1")
        assert kept(shelf, ["c0", "c1"]) == ["c1"]
        assert len(state.entries) == len(state.dn2.bank) == 30
        query = state.vectors([state.entry("c0-7").pk])
        assert state.entries[int(state.nearest(query, 1).ids[0, 0])].image_id == "c0-7"
    assert shelf.follow(state) is state, "and may follow the record with it"
    assert shelf.memory()[0] == 1
    afresh = shelf.get("c0")
    assert afresh is not state
    assert afresh.entries == state.entries


def test_a_collection_larger_than_the_budget_is_kept_alone_and_said(
    five: Core, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(five.database, budget_bytes=size_of_one(five) // 2)
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "oddity.shelf"):
            assert len(shelf.get("c0").entries) == 30
    assert "memory budget" in caplog.text
    assert shelf.memory()[0] == 1


def test_a_collection_is_counted_as_it_grows_and_shrinks(five: Core) -> None:
    shelf = five.shelf
    shelf.get("c0")
    before = shelf.memory()[1]
    with five.database.write() as session:
        row = collections.repository.require(session, "c0", locked=True)
        pks = list(shelf.get("c0").entries)[1:]
        row.sequence += 1
        images.repository.remove(session, row.id, pks, row.sequence)
    assert len(shelf.get("c0").entries) == 1
    assert shelf.memory()[1] < before / 3
    collections.delete_collection(five, "c0", None)
    assert shelf.memory() == (0, 0)


def test_names_that_are_no_collections_leave_nothing_behind(core: Core) -> None:
    for number in range(50):
        with pytest.raises(NotFound):
            core.shelf.get(f"nobody {number}")
    assert core.shelf.memory() == (0, 0)
    assert len(core.shelf._loading) == LOADING_LOCKS


def test_waiting_is_bounded_by_the_clock(five: Core) -> None:
    seconds = iter(range(100))
    shelf = Shelf(five.database, wait_s=3, monotonic=lambda: float(next(seconds)))
    state = shelf.get("c0")
    assert shelf.get("c0", state.sequence) is state
    with pytest.raises(Busy) as caught:
        shelf.get("c0", state.sequence + 1)
    assert caught.value.code == "sequence_not_reached"
    assert next(seconds) == 4, "begun at 0, looked again at 1 and 2, given up at 3"


# --- opening ---


@pytest.mark.parametrize(
    "url", ["mysql://me:sesame@host/x", "mssql+pyodbc://me:sesame@host/x", "sqlite+pysqlcipher:///x"]
)
def test_other_databases_are_refused_without_telling_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnsupported) as caught:
        Database(url)
    assert "postgresql://" in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_goes_by_every_name_it_is_given(scheme: str) -> None:
    database = Database(f"{scheme}://me:sesame@host/x")
    assert database.engine.url.drivername == "postgresql+psycopg"
    assert "sesame" not in repr(database.engine)
    database.close()


def test_memory_is_the_least_of_machine_and_container(tmp_path: Any) -> None:
    container, unlimited = tmp_path / "memory.max", tmp_path / "none"
    container.write_text(f"{300 * 2**20}\n")
    unlimited.write_text("max\n")
    whole = memory_bytes((unlimited, tmp_path / "missing"))
    assert whole > 300 * 2**20
    assert memory_bytes((unlimited, container)) == 300 * 2**20


def test_who_waits_for_a_load_that_began_earlier_sees_what_was_written_since(
    core: Core, open_another: OpenCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(core, "c", 3)
    core.shelf.get("c")
    other = open_another()
    has_read, may_end = threading.Event(), threading.Event()
    load = shelf.load

    def slow(*given: Any) -> Any:
        state = load(*given)
        has_read.set()
        assert may_end.wait(30)
        return state

    monkeypatch.setattr(shelf, "load", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(other.shelf.get, "c")
        assert has_read.wait(30)
        sequence = images.delete_image(core, "c", "c-0")
        second = threads.submit(other.shelf.get, "c")
        threading.Event().wait(0.2)  # it waits for the first now
        may_end.set()
        first.result()
        assert second.result().sequence == sequence
