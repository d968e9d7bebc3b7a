"""The entry table against a plain dictionary of entries, through every kind of change."""

import hashlib
import json
import mmap
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.entries import GROWTH, EntryTable, Settled
from app.entry_columns import ROLES, EntryColumns, ImageEntry, image_key
from app.packed_strings import PackedStrings

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NAMES = st.none() | TEXTS


def made(pk: int, salt: int = 0, label: str | None = None, group: str | None = None) -> ImageEntry:
    sha256 = hashlib.sha256(f"{pk} {salt}".encode()).hexdigest()
    document = json.dumps({"pk": pk, "salt": salt, "text": "é" * (pk % 3)})
    return ImageEntry(pk, f"bild-ü-{pk}", sha256, ROLES[(pk + salt) % 4], label, group, document)


def columns(entries: list[ImageEntry]) -> EntryColumns:
    fields = ("pk", "image_id", "sha256", "role", "label", "group", "metadata_json")
    return EntryColumns.of(*([getattr(one, field) for one in entries] for field in fields))


def check(table: EntryTable, entries: dict[int, ImageEntry]) -> None:
    """Every way to look at the table against the dictionary."""
    pks = sorted(entries)
    assert len(table) == len(pks)
    assert list(table) == pks
    assert table == entries
    assert list(table.values()) == [entries[pk] for pk in pks]
    assert [table.find(entries[pk].image_id) for pk in pks] == pks
    roles = [entry.role for entry in entries.values()]
    assert table.counts() == {role: roles.count(role) for role in ROLES}
    assert [ROLES[code] for code in table.roles_of(pks)] == [entries[pk].role for pk in pks]
    backwards = pks[::-1]
    assert table.groups_of(backwards) == [entries[pk].group for pk in backwards]
    assert table.image_ids_of(backwards) == [entries[pk].image_id for pk in backwards]
    assert [one.tobytes().hex() for one in table.hashes_of(backwards)] == [entries[pk].sha256 for pk in backwards]
    assert table.marks_of(pks).tolist() == [int(entries[pk].sha256[:16], 16) for pk in pks]
    assert table.keys_of(pks).tolist() == [image_key(entries[pk].image_id) for pk in pks]
    assert table.known([*pks, -1, 10**9]).tolist() == [True] * len(pks) + [False, False]


class Changes(RuleBasedStateMachine):
    """Small and large additions, new facts, removals and restarts."""

    @initialize(rows=st.integers(0, 12), merged=st.sampled_from([0, 10, 1000]))
    def begin(self, rows: int, merged: int) -> None:
        self.table, self.entries, self.salt = EntryTable(), {}, 0
        self.rows, self.merged = rows, merged
        self.limit()

    def limit(self) -> None:
        self.table.overlay_rows, self.table.merged_rows = self.rows, self.merged  # type: ignore[misc]

    @rule()
    def settle(self) -> None:
        before, settled = self.table.segments, self.table.settled()
        assert self.table.segments is before, "only adopting it is a change"
        self.table.adopt(settled)
        assert self.table.settled() is None
        sizes = [one.living for one in self.table.segments]
        assert all(one >= GROWTH * other for one, other in pairwise(sizes))

    @rule(pks=st.lists(st.integers(0, 60), unique=True, max_size=40), label=NAMES, group=NAMES)
    def put(self, pks: list[int], label: str | None, group: str | None) -> None:
        self.salt += 1
        entries = [made(pk, self.salt, label, group if pk % 2 else None) for pk in pks]
        self.table.put(columns(entries))
        self.entries.update((one.pk, one) for one in entries)

    @rule(pks=st.lists(st.integers(0, 60), max_size=30))
    def remove(self, pks: list[int]) -> None:
        self.table.remove(pks)
        for pk in pks:
            self.entries.pop(pk, None)

    @rule()
    def restart(self) -> None:
        self.table = EntryTable.restore(self.table.export_arrays())
        self.limit()

    @invariant()
    def looks_alike(self) -> None:
        if hasattr(self, "table"):
            check(self.table, self.entries)


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@pytest.fixture
def table() -> EntryTable:
    """A segment, gone rows and an overlay."""
    made_of = EntryTable(columns([made(pk, label="l", group=f"g{pk % 3}") for pk in range(0, 40, 2)]))
    made_of.remove([4, 8])
    made_of.put(columns([made(6, 9), made(41, 9, "é", "new"), made(43)]))
    return made_of


def test_the_comparison_can_fail(table: EntryTable) -> None:
    entries = dict(table)
    check(table, entries)
    for pk, entry in ((6, made(6, 8)), (10, made(10, 1)), (3, made(3))):
        with pytest.raises(AssertionError):
            check(table, {**entries, pk: entry})


def test_what_is_not_there(table: EntryTable) -> None:
    for pk in (4, 5, -1, 1000):
        assert pk not in table and table.get(pk) is None
        with pytest.raises(KeyError):
            table[pk]
        for look in (table.roles_of, table.marks_of, table.keys_of, table.groups_of, table.image_ids_of):
            with pytest.raises(KeyError):
                look([6, pk])
    assert "6" not in table
    assert table.find("nobody") is None and table.find(made(4).image_id) is None
    assert EntryTable().find("nobody") is None and table.find("\ud800") is None
    assert EntryTable().counts() == dict.fromkeys(ROLES, 0)


def test_ids_of_one_key_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.entry_columns.image_key", lambda _: 7)
    monkeypatch.setattr("app.entries.image_key", lambda _: 7)
    table = EntryTable(columns([made(pk) for pk in range(9)]))
    assert [table.find(made(pk).image_id) for pk in range(9)] == list(range(9))
    assert table.find("nobody") is None


def test_a_pk_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="each pk once"):
        EntryTable().put(columns([made(1), made(1, 2)]))


def test_metadata_is_not_decoded_until_it_is_asked_for() -> None:
    broken = ImageEntry(1, "a", "00" * 32, "normal", None, None, "{no json")
    table = EntryTable(columns([broken, made(2)]))
    table.put(columns([made(3)]))
    restored = EntryTable.restore(table.export_arrays())
    assert restored[2].metadata == {"pk": 2, "salt": 0, "text": "éé"}
    with pytest.raises(json.JSONDecodeError):
        _ = restored[1].metadata


def test_the_number_of_segments_stays_small_however_images_come() -> None:
    table = EntryTable()
    table.overlay_rows = 8  # type: ignore[misc]
    moved = [0]
    join = EntryTable._joined

    def counted(*given: object) -> EntryColumns:
        joined = join(*given)  # type: ignore[arg-type]
        moved[0] += len(joined)
        return joined

    table._joined = counted  # type: ignore[method-assign,assignment]
    for start in range(0, 4096, 8):
        table.put(columns([made(pk) for pk in range(start, start + 8)]))
    sizes = [segment.living for segment in table._segments]
    assert all(one >= GROWTH * other for one, other in pairwise(sizes))
    assert len(table) == 4096 and len(sizes) <= 6
    assert moved[0] < 4096 * 25, "each image is moved a few times, not once per change"


def test_a_large_merge_waits_and_keeps_the_indexes_that_filters_asked_for() -> None:
    table = EntryTable(columns([made(pk) for pk in range(40)]))
    table.overlay_rows, table.merged_rows = 4, 20  # type: ignore[misc]
    table.prepare(["pk"])
    table.put(columns([made(pk) for pk in range(40, 70)]))
    assert [one.living for one in table.segments] == [40, 30]
    entries, settled = dict(table), table.settled()
    assert settled is not None
    table.adopt(settled)
    check(table, entries)
    (only,) = table.segments
    assert only.living == 70 and "pk" in only.indexes
    table.put(columns([made(pk, 1) for pk in range(60, 90)]))
    late = table.settled()
    table.remove([0])
    table.put(columns([made(pk) for pk in range(100, 300)]))
    now = dict(table)
    table.adopt(Settled(settled.before, settled.after))
    check(table, now)
    assert late is not None


def files(arrays: dict[str, np.ndarray], folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name, one in arrays.items():
        (folder / name).write_bytes(one.tobytes() or b"\0")
        with (folder / name).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        yield name, np.frombuffer(mapped, one.dtype, one.size).reshape(one.shape)


def test_a_table_mapped_from_files_is_the_same_and_takes_no_memory(table: EntryTable, tmp_path: Path) -> None:
    arrays = table.export_arrays()
    assert all(one.dtype.hasobject is False for one in arrays.values())
    mapped = EntryTable.restore(dict(files(arrays, tmp_path)))
    check(mapped, dict(table))
    assert mapped.memory_bytes <= len(table), "one mark an image, in case that it goes"
    mapped.remove([6])
    mapped.put(columns([made(7)]))
    check(mapped, {**{pk: one for pk, one in table.items() if pk != 6}, 7: made(7)})


@pytest.mark.parametrize(
    ("name", "put"),
    [
        ("pks", None),
        ("pks", np.array([3, 2], np.int64)),
        ("pks", np.array([1, 2], np.int32)),
        ("roles", np.array([1], np.uint8)),
        ("hashes", np.zeros((2, 31), np.uint8)),
        ("metadata_offsets", np.array([0, 1, 99], np.int64)),
        ("label_values_offsets", np.zeros(0, np.int64)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, put: np.ndarray | None) -> None:
    arrays = EntryTable(columns([made(1), made(2)])).export_arrays()
    EntryTable.restore(arrays)
    if put is None:
        del arrays[name]
    else:
        arrays[name] = put
    with pytest.raises(ValueError, match=f"`{name}`"):
        EntryTable.restore(arrays)


@pytest.mark.parametrize("count", [500, 4000])
def test_memory_is_counted_as_it_is_taken(count: int) -> None:
    """Of an overlay of Python objects, and of columns."""
    given = [made(pk, group=f"g{pk % 9}") for pk in range(count)]
    fields = ("pk", "image_id", "sha256", "role", "label", "group", "metadata_json")
    texts = [[getattr(one, field) for one in given] for field in fields]
    tracemalloc.start()
    try:
        table = EntryTable()
        for start in range(0, count, 500):
            table.put(EntryColumns.of(*(one[start : start + 500] for one in texts)))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / 1.25 < table.memory_bytes < taken * 1.25
    table.remove(list(range(count)))
    assert table.memory_bytes == 0


@given(st.lists(st.text(max_size=5), max_size=30), st.data())
@settings(deadline=None)
def test_packed_strings_are_what_was_packed(texts: list[str], data: st.DataObject) -> None:
    packed = PackedStrings.of(texts)
    assert packed.texts() == texts and [packed[place] for place in range(len(texts))] == texts
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=20) if texts else st.just([]))
    assert packed.take(np.array(places, np.intp)).texts() == [texts[place] for place in places]
    assert PackedStrings.joined([packed, PackedStrings.of(["x"]), packed]).texts() == [*texts, "x", *texts]
    ordered = PackedStrings.of(sorted(set(texts)))
    for wanted in [*texts, "", "b", "\U0001f600"]:
        assert ordered.place_left(wanted) == sum(text < wanted for text in set(texts))
        assert ordered.place_right(wanted) == sum(text <= wanted for text in set(texts))
