"""leave_one_out.py: at any time equal to computing it afresh, whatever came and went in whatever order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Metric, make_index
from models.errors import ParameterInvalid
from models.leave_one_out import (
    GroupLedger,
    LeaveOneOutTable,
    NearestRows,
    every_nearest_others,
    nearest_others,
)
from tests.oracles import dn2 as oracle

WIDTH = 3


def key_of(number: int) -> int:
    """Any fixed scramble: keys that do not follow the ids."""
    return (number * 2_654_435_761) % 2**32


def afresh(stored: dict, rows: int, depth: int, metric: Metric) -> LeaveOneOutTable:
    index = make_index("exact", width=WIDTH, metric=metric)
    table = LeaveOneOutTable(index, rows=rows, depth=depth)
    ids = np.array(sorted(stored), dtype=np.int64)
    if ids.size:
        index.add(ids, np.array([stored[i][0] for i in ids.tolist()], dtype=np.float32))
        table.add(ids, keys(ids), [stored[i][1] for i in ids.tolist()])
    return table


def keys(ids: np.ndarray) -> np.ndarray:
    return np.array([key_of(i) for i in ids.tolist()], dtype=np.uint64)


# Coarse coordinates, zeros included: ties, duplicates and vectors without an angle are the rule.
vectors = st.tuples(*[st.sampled_from([-1.0, 0.0, 0.5, 2.0])] * WIDTH)
groups = st.sampled_from([None, None, None, "a", "b"])
added = st.tuples(st.just("add"), st.lists(st.tuples(st.integers(0, 30), vectors, groups), min_size=1, max_size=9))
removed = st.tuples(st.just("remove"), st.lists(st.integers(0, 30), min_size=1, max_size=6))
read = st.tuples(st.just("read"), st.integers(1, 7))


@given(
    steps=st.lists(st.one_of(added, added, removed, read), max_size=14),
    metric=st.sampled_from(list(Metric)),
    rows=st.sampled_from([4, 12, 100]),
    eager=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_the_table_equals_one_computed_afresh(steps, metric, rows, eager):
    follow([*steps, ("read", 2)], metric, rows, eager)


@pytest.mark.parametrize("seed", range(16))
def test_long_walks_equal_computing_afresh(seed):
    # Longer than hypothesis likes to go: lists fill up, run short and fill again.
    random = np.random.default_rng(seed)
    steps: list[tuple] = []
    for turn in range(60):
        numbers = random.permutation(60)[: random.integers(1, 2 + min(turn, 5))].tolist()
        what = random.choice(["add", "add", "remove", "read"])
        if what == "add":
            steps.append(("add", [(n, tuple(random.integers(-4, 5, WIDTH)), tag(random)) for n in numbers]))
        else:
            steps.append(("remove", numbers) if what == "remove" else ("read", int(random.choice([1, 1, 1, 2, 6, 7]))))
    follow(steps, list(Metric)[seed % 2], (5, 100)[seed // 2 % 2], seed % 8 < 4, depth=(6, 3)[seed // 8])


def tag(random: np.random.Generator) -> str | None:
    return random.choice([None, None, None, None, "a", "b"])


def follow(steps, metric, rows, eager, depth=3):
    """Takes the steps with a live table and compares each reading with a table made for the occasion."""
    index = make_index("flat", width=WIDTH, metric=metric)
    table = LeaveOneOutTable(index, rows=rows, depth=depth)
    if not eager:
        table.add = postponed(table)
    stored: dict[int, tuple] = {}
    for what, values in steps:
        if what == "add":
            new = {i: (vector, group) for i, vector, group in values if i not in stored}
            ids = np.array(list(new), dtype=np.int64)
            index.add(ids, np.array([v for v, _ in new.values()], dtype=np.float32).reshape(-1, WIDTH))
            table.add(ids, keys(ids), [group for _, group in new.values()])
            stored |= new
        elif what == "remove":
            ids = np.array(values, dtype=np.int64)
            index.remove(ids)
            table.remove(ids)
            stored = {i: kept for i, kept in stored.items() if i not in values}
        else:
            expected = afresh(stored, rows, depth, metric)
            assert table.ids.tolist() == expected.ids.tolist()
            assert table.ids.tolist() == sorted(stored, key=lambda i: (key_of(i), i))[:rows]
            for _ in range(2):  # the second reading finds what the first one postponed or remembered
                mine, theirs = table.nearest(values), expected.nearest(values)
                assert mine.ids.tolist() == theirs.ids.tolist()
                assert mine.distances.tobytes() == theirs.distances.tobytes()
            assert table.usable_k(values) == expected.usable_k(values)


def postponed(table: LeaveOneOutTable):
    """`add` as it is for large batches, which leave their searches to the first reader."""
    add, search = table.add, table._nearest.search_rows

    def added_lazily(*arguments):
        table._nearest.search_rows = lambda _: None
        add(*arguments)
        table._nearest.search_rows = search

    return added_lazily


@given(
    bank=st.lists(st.tuples(vectors, groups), min_size=2, max_size=14),
    metric=st.sampled_from(list(Metric)),
    k=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_mean_distances_equal_a_double_loop(bank, metric, k):
    values = np.array([v for v, _ in bank], dtype=np.float32)
    tags = [group for _, group in bank]
    table = afresh(dict(enumerate(bank)), 100, 3, metric)
    used = table.usable_k(k)
    nearest = table.nearest(used)
    enough = [
        sum(tag is None or tag != other for place, other in enumerate(tags) if place != row) >= used
        for row, tag in enumerate(tags)
    ]
    for row, number in enumerate(table.ids.tolist()):
        if not enough[number]:  # only possible when everything is one group
            assert len(set(tags)) == 1
            continue
        others = [
            values[place]
            for place, other in enumerate(tags)
            if place != number and (tags[number] is None or tags[number] != other)
        ]
        expected = oracle.mean_to_nearest(values[number], others, used, metric)
        assert nearest.distances[row].mean() == pytest.approx(expected, abs=2e-6)


def test_nothing_is_its_own_neighbour_and_no_group_vouches_for_itself():
    index = make_index("exact", width=2, metric=Metric.L2)
    index.add(np.arange(4), np.array([[0, 0], [0, 0], [3, 4], [6, 8]], dtype=np.float32))
    table = LeaveOneOutTable(index)
    table.add(np.arange(4), np.arange(4, dtype=np.uint64), ["burst", "burst", None, None])
    assert table.nearest(1).distances[:, 0].tolist() == [5.0, 5.0, 5.0, 5.0]
    assert table.nearest(1).ids[:, 0].tolist() == [2, 2, 0, 2]
    # Negative control: without the tags the two copies find each other.
    untagged = LeaveOneOutTable(index)
    untagged.add(np.arange(4), np.arange(4, dtype=np.uint64))
    assert untagged.nearest(1).distances[:, 0].tolist() == [0.0, 0.0, 5.0, 5.0]


def test_a_group_larger_than_anything_fetched_is_still_left_out():
    generator = np.random.default_rng(5)
    values = generator.normal(size=(300, 4)).astype(np.float32)
    values[:200] *= 0.01  # one dense group of 200 around the origin
    index = make_index("flat", width=4, metric=Metric.L2)
    index.add(np.arange(300), values)
    ledger = GroupLedger()
    ledger.add(range(200), ["dense"] * 200)
    found = nearest_others(index, np.arange(300), values, 2, ledger)
    expected = oracle.leave_one_out(values[:5].tolist() + values[200:].tolist(), 2, "l2", ["dense"] * 5 + [None] * 100)
    assert (found.ids[:200] >= 200).all()
    assert found.distances[:5].mean(axis=1) == pytest.approx(expected[:5], rel=1e-5)
    # Negative control: the fetch alone, k + 64, would have been full of the group.
    assert (index.search(values[:5], 66).ids < 200).all()


def test_everything_in_one_group_leaves_nobody():
    table = afresh({i: ((float(i), 0.0, 1.0), "a") for i in range(70)}, 100, 3, Metric.L2)
    assert (table.nearest(2).ids == -1).all()
    assert table.usable_k(2) == 1


def test_k_is_what_every_left_out_row_still_has():
    five = {i: ((float(i), 0.0, 1.0), None) for i in range(5)}
    assert [afresh(five, 100, 3, Metric.L2).usable_k(k) for k in (1, 2, 4, 9)] == [1, 2, 4, 4]
    tagged = {i: (v, "a" if i < 3 else None) for i, (v, _) in five.items()}
    assert [afresh(tagged, 100, 3, Metric.L2).usable_k(k) for k in (1, 2, 4)] == [1, 2, 2]


class CountingIndex:
    """An index that counts the queries it is asked."""

    def __init__(self, index):
        self._index = index
        self.queries = 0

    def __getattr__(self, name):
        return getattr(self._index, name)

    def __len__(self):
        return len(self._index)

    def search(self, queries, k, *, allowed=None):
        self.queries += len(queries)
        return self._index.search(queries, k, allowed=allowed)


def test_adding_searches_only_for_newcomers_among_the_smallest_keys():
    generator = np.random.default_rng(1)
    index = CountingIndex(make_index("flat", width=8, metric=Metric.COSINE))
    table = LeaveOneOutTable(index, rows=50)
    order = generator.permutation(2000)

    def add(numbers):
        index.add(numbers, generator.normal(size=(len(numbers), 8)).astype(np.float32))
        table.add(numbers, keys(numbers))

    add(order[:1500])
    table.nearest(2)
    index.queries = 0
    for start in range(1500, 2000, 32):
        add(order[start : start + 32])
    # Each newcomer is among the 50 smallest of n with chance 50 / n: about 14 of 500.
    assert index.queries < 60
    before = index.queries
    table.nearest(2)
    assert index.queries == before


def test_removing_searches_again_only_when_a_list_runs_short():
    generator = np.random.default_rng(2)
    index = CountingIndex(make_index("flat", width=8, metric=Metric.L2))
    index.add(np.arange(500), generator.normal(size=(500, 8)).astype(np.float32))
    table = LeaveOneOutTable(index, rows=20)
    # Rows 0..19 are the calibration rows and never removed.
    table.add(np.arange(500), np.arange(500, dtype=np.uint64))
    table.nearest(2)
    index.queries = 0
    nearest = table.nearest(2).ids[0, 0]
    nearest = nearest if nearest >= 20 else 499
    index.remove(np.array([nearest]))
    table.remove(np.array([nearest]))
    table.nearest(2)
    assert index.queries == 0
    doomed = table.nearest(16).ids[0]
    doomed = doomed[doomed >= 20]
    index.remove(doomed)
    table.remove(doomed)
    found = table.nearest(2)
    assert 0 < index.queries <= 20 + 1
    assert not np.isin(found.ids, doomed).any()


def test_a_removed_calibration_row_is_replaced_by_the_next_key():
    index = make_index("exact", width=1, metric=Metric.L2)
    index.add(np.arange(5), np.arange(5, dtype=np.float32)[:, None])
    table = LeaveOneOutTable(index, rows=3)
    table.add(np.arange(5), np.array([50, 10, 40, 20, 30], dtype=np.uint64))
    assert table.ids.tolist() == [1, 3, 4]
    index.remove(np.array([3]))
    table.remove(np.array([3, 77]))
    assert table.ids.tolist() == [1, 4, 2]
    assert table.holds(np.array([3, 4])).tolist() == [False, True]
    assert len(table) == 4


def test_a_list_that_was_all_there_is_learns_of_what_lies_beyond_it():
    # Rows remember two others. Of three images each knows all; a fourth is too far to enter a list.
    index = make_index("exact", width=1, metric=Metric.L2)
    table = LeaveOneOutTable(index, depth=2)

    def add(values: dict[int, float]) -> None:
        numbers = np.array(list(values))
        index.add(numbers, np.array(list(values.values()), dtype=np.float32)[:, None])
        table.add(numbers, numbers.astype(np.uint64))

    add({0: 0.0, 1: 1.0, 2: 2.0})
    assert table.nearest(2).ids[0].tolist() == [1, 2]
    add({3: 100.0})
    gone = np.array([1, 2])
    index.remove(gone)
    table.remove(gone)
    assert table.nearest(1).ids.tolist() == [[3], [0]]
    # More at once than are remembered, into lists that were all there is.
    add({number: float(number) for number in range(4, 9)})
    gone = np.array([4, 5])
    index.remove(gone)
    table.remove(gone)
    assert table.nearest(2).ids[0].tolist() == [6, 7]


def test_whole_bank_with_progress():
    generator = np.random.default_rng(3)
    values = generator.normal(size=(600, 4)).astype(np.float32)
    index = make_index("flat", width=4, metric=Metric.COSINE)
    index.add(np.arange(600), values)
    seen = []
    ids, nearest = every_nearest_others(index, 2, GroupLedger(), lambda done, whole: seen.append((done, whole)))
    assert ids.tolist() == list(range(600))
    assert not (nearest.ids == ids[:, None]).any()
    assert seen == [(256, 600), (512, 600), (600, 600)]


def test_more_than_the_depth_is_not_remembered():
    rows = NearestRows(make_index("exact", width=2, metric=Metric.L2), GroupLedger(), depth=4)
    with pytest.raises(ParameterInvalid, match="at most 4"):
        rows.nearest(5)
