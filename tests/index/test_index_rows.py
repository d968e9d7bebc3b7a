"""Rows under ids against a dictionary, and what they cost in memory."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import CountOutOfRange, IdInvalid, IdTaken, Metric
from index.distances import pair_distances, unit_rows
from index.rows import RowStore

ids_lists = st.lists(st.integers(0, 25), max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    metric=st.sampled_from(Metric),
    steps=st.lists(st.tuples(st.sampled_from(["add", "remove"]), ids_lists), max_size=25),
)
def test_any_history_ends_as_a_dictionary_would(metric, steps):
    store, model, counter = RowStore(width=2, metric=metric), {}, 0
    for act, ids in steps:
        if act == "add":
            rows = np.array([[counter + n, 1 + n] for n in range(len(ids))], dtype=np.float32).reshape(-1, 2)
            counter += 1
            if len(set(ids)) < len(ids) or set(ids) & set(model):
                with pytest.raises(IdTaken):
                    store.add(ids, rows)
            else:
                store.add(ids, rows)
                model.update(zip(ids, rows.tolist(), strict=True))
        else:
            assert store.remove(ids) == len(set(ids) & set(model))
            for i in ids:
                model.pop(i, None)
        assert len(store) == len(model)
        assert store.ids().tolist() == sorted(model)
        assert store.vectors(list(model)).tolist() == list(model.values())


def test_growth_is_amortised_and_removal_gives_memory_back():
    store = RowStore(width=64, metric=Metric.L2)
    sizes = set()
    for start in range(0, 20_000, 10):
        store.add(np.arange(start, start + 10), np.full((10, 64), start, dtype=np.float32))
        sizes.add(store.memory_bytes)
    row_bytes = 64 * 4 + 24
    assert len(sizes) < 60  # 2,000 calls moved the rows so few times
    assert store.memory_bytes <= 1.6 * 20_000 * row_bytes
    for start in range(0, 18_000, 9):
        store.remove(np.arange(start, start + 9))
    assert store.memory_bytes <= 2 * 2_000 * row_bytes
    assert store.vectors([18_000, 19_999])[:, 0].tolist() == [18_000, 19_990]
    store.remove(store.ids())
    assert store.memory_bytes == 0


def test_a_unit_row_is_kept_once_and_any_other_twice():
    store = RowStore(width=64, metric=Metric.COSINE)
    store.add(np.arange(64), np.eye(64))
    rows = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store.add(np.arange(100, 600), rows)
    store.remove(np.arange(100, 600))
    once = store.memory_bytes
    store.add([64], np.full((1, 64), 3.0))
    assert store.memory_bytes > 1.9 * once
    assert store.vectors([64, 5]).tolist() == [[3.0] * 64, np.eye(64)[5].tolist()]
    store.remove(np.arange(65))
    assert store.memory_bytes == 0


@pytest.mark.parametrize("ids", [[[1]], ["1"], [True], [2**64 - 1]])
def test_ids_that_are_none_are_refused(ids):
    with pytest.raises(IdInvalid):
        RowStore(width=1, metric=Metric.L2).add(ids, [[1.0]])


def test_widths_start_at_one():
    with pytest.raises(CountOutOfRange, match="`width` must be a whole number from 1; got 0"):
        RowStore(width=0, metric=Metric.L2)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 40),
    exponent=st.integers(-42, 17),
)
def test_unit_rows_are_unit_and_stay_so(seed, width, exponent):
    rows = np.random.default_rng(seed).standard_normal((20, width)) * 10.0**exponent
    rows = rows.astype(np.float32)
    rows[3] = 0
    kept = rows.copy()
    unit = unit_rows(rows)
    assert np.array_equal(rows, kept)
    lengths = np.linalg.norm(unit.astype(np.float64), axis=1)
    assert (np.isclose(lengths, 1, rtol=0, atol=4.1e-7) == rows.any(axis=1)).all()
    assert unit_rows(unit) is unit


@pytest.mark.parametrize("width", [1, 2, 7, 8, 127, 128, 129, 512, 2048, 8191, 8192, 9000, 20_001])
@pytest.mark.parametrize("metric", Metric)
def test_a_distance_has_the_same_bits_wherever_it_stands(metric, width):
    random = np.random.default_rng(width)
    rows = random.standard_normal((33, width), dtype=np.float32)
    query = random.standard_normal(width, dtype=np.float32)
    together = pair_distances(metric, query, rows)
    alone = [pair_distances(metric, query, rows[n : n + 1].copy())[0] for n in range(33)]
    assert together.tolist() == [float(d) for d in alone]
    batched = pair_distances(metric, np.stack([query, query])[:, None], np.stack([rows, rows[::-1]]))
    assert batched[0].tolist() == batched[1][::-1].tolist() == together.tolist()


def test_only_what_is_all_zeros_is_at_distance_one_by_rule():
    unit, sixty_degrees, zeros = np.float32([1, 0]), np.float32([0.5, 0.75**0.5]), np.zeros(2, np.float32)
    found = pair_distances(Metric.COSINE, unit, np.stack([unit, sixty_degrees, zeros]))
    assert found.tolist() == [0.0, pytest.approx(0.5, abs=1e-7), 1.0]
    assert pair_distances(Metric.COSINE, zeros, np.stack([unit, sixty_degrees, zeros])).tolist() == [1.0, 1.0, 1.0]


def test_importing_the_package_does_not_load_faiss():
    code = "import sys, index; index.set_threads(1); sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys, index; index.kmeans; sys.exit('faiss' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_reserving_moves_nothing_afterwards_and_changes_no_answer() -> None:
    random = np.random.default_rng(3)
    rows = random.standard_normal((300, 8)).astype(np.float32)
    plain, reserved = RowStore(width=8, metric=Metric.L2), RowStore(width=8, metric=Metric.L2)
    for index in (plain, reserved):
        index.add(np.arange(10), rows[:10])
    reserved.reserve(290)
    room = reserved.memory_bytes
    for start in range(10, 300, 29):
        for index in (plain, reserved):
            index.add(np.arange(start, start + 29)[: 300 - start], rows[start : start + 29])
    assert reserved.memory_bytes == room
    assert plain.memory_bytes != room, "growing by itself makes steps of another size"
    np.testing.assert_array_equal(plain.vectors(plain.ids()), reserved.vectors(reserved.ids()))
