"""The coded copy against the judge, to the bit; the bounds that make it so; and what changes do to it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Metric, codes, make_index, open_arrays, torch_scan, write_arrays
from index.auto import AutoIndex, Plan
from index.faiss_flat import FlatIndex
from index.torch_scan import CodedRows, coded_queries
from tests.index.auto_states import small_codes


@pytest.fixture
def small(monkeypatch):
    small_codes(monkeypatch)


def coded(index):
    """The index, with all its rows coded."""
    assert not index.adopt(index.build(Plan("scan", "a test"), seed=0))
    return index


def both(metric, ids, vectors):
    pair = [make_index(kind, width=vectors.shape[1], metric=metric) for kind in ("exact", "auto")]
    for index in pair:
        index.add(ids, vectors)
    return pair[0], coded(pair[1])


def assert_same(exact, index, queries, k, allowed=None):
    one, other = (index.search(queries, k, allowed=allowed) for index in (exact, index))
    np.testing.assert_array_equal(other.ids, one.ids)
    np.testing.assert_array_equal(other.distances, one.distances)


def test_this_machine_has_the_products():
    assert torch_scan.available()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(Metric),
    n=st.integers(1, 400),
    width=st.integers(1, 9),
    levels=st.integers(1, 4),
    offset=st.sampled_from([0.0, 10.0, 4096.0]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e10]),
    n_queries=st.integers(1, 20),
    k=st.integers(1, 60),
    share=st.none() | st.floats(0, 1),
    gone=st.floats(0, 0.5),
)
def test_equals_the_judge_on_lattices_full_of_ties(
    seed, metric, n, width, levels, offset, scale, n_queries, k, share, gone
):
    random = np.random.default_rng(seed)
    ids = random.permutation(4 * n)[:n]
    vectors = ((random.integers(-levels, levels + 1, (n, width)) + offset) * scale).astype(np.float32)
    queries = ((random.integers(-levels, levels + 1, (n_queries, width)) + offset) * scale).astype(np.float32)
    allowed = None if share is None else ids[random.random(n) < share]
    with pytest.MonkeyPatch.context() as patch:
        small_codes(patch)
        exact, index = both(metric, ids, vectors)
        assert_same(exact, index, queries, k, allowed)
        for one in (exact, index):
            one.remove(ids[random.random(n) < gone] if one is exact else np.setdiff1d(ids, exact.ids()))
            one.add([10**6, 10**6 + 1], queries[[0, -1]])
        assert_same(exact, index, queries, k, allowed)
        if len(exact) > 2:
            assert_same(exact, coded(index), queries, k, allowed)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("spread", [1e-7, 1e-3, 1e-2, 1.0])
@pytest.mark.usefixtures("small")
def test_equals_the_judge_in_tight_clusters(metric, spread):
    random = np.random.default_rng(1)
    centres = random.random((9, 128)) + 0.5
    vectors = (centres[np.arange(900) % 9] + spread * random.standard_normal((900, 128))).astype(np.float32)
    exact, index = both(metric, np.arange(900), vectors)
    for queries in (vectors[:1], vectors[:48]):
        for allowed in (None, np.arange(0, 900, 2)):
            assert_same(exact, index, queries, 3, allowed)


@pytest.mark.usefixtures("small")
def test_rows_within_a_coding_step_are_wrong_without_what_the_coding_lost(monkeypatch):
    """The negative control: bounds that ignore the residual leave out true neighbours."""
    random = np.random.default_rng(1)
    vectors = (random.random(128) + 3e-3 * random.standard_normal((2000, 128))).astype(np.float32)
    vectors[0] = 40  # one far row makes the steps of all coarse, as seen from the centre
    honest = torch_scan.CodedRows.__init__

    def hopeful(self, *args):
        honest(self, *args)
        self.bounds[1:] = 0

    exact, index = both(Metric.L2, np.arange(2000), vectors)
    assert_same(exact, index, vectors[1:30], 3)
    monkeypatch.setattr(torch_scan.CodedRows, "__init__", hopeful)
    _, index = both(Metric.L2, np.arange(2000), vectors)
    with pytest.raises(AssertionError):
        assert_same(exact, index, vectors[1:30], 3)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 300),
    offset=st.sampled_from([0.0, 3.0, 1e3]),
    tail=st.sampled_from([1.0, 3.0]),  # a power that makes a few numbers much larger than the rest
    n_queries=st.sampled_from([1, 2, 3, 9]),
)
def test_no_row_is_nearer_than_its_bound(seed, width, offset, tail, n_queries):
    random = np.random.default_rng(seed)
    rows = (np.abs(random.standard_normal((120, width))) ** tail + offset).astype(np.float32)
    queries = np.concatenate((rows[:n_queries], (random.standard_normal((9, width)) + offset).astype(np.float32)))
    queries = queries[9:] if n_queries == 9 else queries[:n_queries]
    centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    unit = float(np.linalg.norm(rows - centre, axis=1).max()) or 1.0
    block = CodedRows(rows, centre, unit)
    asked = coded_queries(queries, centre, unit)
    bounds = np.empty((len(queries), 120), dtype=np.float32)
    block.write_bounds(asked, block.bounds, bounds)
    lower = (bounds * asked.steps[:, None] + asked.squares[:, None] * (1 - torch_scan.SLACK)) * unit**2
    true = ((rows.astype(np.float64)[None] - queries.astype(np.float64)[:, None]) ** 2).sum(axis=2)
    assert (lower <= true * (1 + 1e-12)).all()


def test_the_bounds_are_close_enough_to_be_useful():
    """Within some percent of the distance; two digits bring them closer than one."""
    random = np.random.default_rng(2)
    rows = random.standard_normal((400, 512)).astype(np.float32)
    centre = rows.mean(axis=0)
    block = CodedRows(rows, centre, 25.0)
    true = ((rows[:40, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    gaps = []
    for step in (1, 40):
        lower = np.empty((40, 400), dtype=np.float32)
        squares = []
        for start in range(0, 40, step):
            asked = coded_queries(rows[start : start + step], centre, 25.0)
            part = np.empty((step, 400), dtype=np.float32)
            block.write_bounds(asked, block.bounds, part)
            lower[start : start + step] = (part * asked.steps[:, None] + asked.squares[:, None]) * 625
            squares.append(asked.second)
        gaps.append(float((true - lower).mean() / true.mean()))
    assert gaps[0] < 0.5 * gaps[1] < 0.015


@pytest.mark.parametrize("n_threads", [1, 3])
def test_blocks_are_scanned_by_threads_that_leave_torch_as_it_was(n_threads):
    random = np.random.default_rng(3)
    rows = random.standard_normal((64 * 5 + 7, 20)).astype(np.float32)
    centre = rows.mean(axis=0)
    blocks = [CodedRows(rows[start : start + 64], centre, 10.0) for start in range(0, len(rows), 64)]
    asked = coded_queries(rows[:6], centre, 10.0)
    before = torch.get_num_threads()
    bounds, lowest = torch_scan.scan(blocks, [block.bounds for block in blocks], asked, n_threads)
    assert torch.get_num_threads() == before
    expected = np.full((6, 352), np.inf, dtype=np.float32)
    for block, start in zip(blocks, range(0, len(rows), 64), strict=True):
        block.write_bounds(asked, block.bounds, expected[:, start : start + len(block)])
    assert np.array_equal(bounds, expected)
    assert np.array_equal(lowest, expected.reshape(6, 11, 32).min(axis=2))


def counting(monkeypatch, name):
    calls = []
    real = getattr(FlatIndex, name)

    def counted(self, *args, **kwargs):
        calls.append(len(args[0]))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(FlatIndex, name, counted)
    return calls


def test_a_clear_answer_needs_no_float32_scan(monkeypatch):
    """At its true sizes the copy is used, and ordinary queries are settled by it."""
    random = np.random.default_rng(4)
    vectors = np.maximum(random.standard_normal((10_000, 64)), 0).astype(np.float32)
    exact, index = both(Metric.COSINE, np.arange(len(vectors)), vectors)
    calls = counting(monkeypatch, "nearest_at")
    queries = np.maximum(random.standard_normal((40, 64)), 0).astype(np.float32)
    for part in (queries[:1], queries):
        assert_same(exact, index, part, 10)
    assert calls == []
    assert_same(exact, index, queries[:1], 10, np.arange(50))  # few allowed rows are compared in float32
    assert calls == [1]


def counting_rows(monkeypatch):
    coded_rows = []
    real = CodedRows.__init__

    def counted(self, rows, *rest):
        coded_rows.append(len(rows))
        real(self, rows, *rest)

    monkeypatch.setattr(CodedRows, "__init__", counted)
    return coded_rows


def test_searches_code_nothing_and_a_build_only_what_changed(monkeypatch):
    monkeypatch.setattr(codes, "BLOCK_ROWS", 640)
    monkeypatch.setattr(codes, "UNCODED_MAX", 300)
    random = np.random.default_rng(5)
    vectors = random.standard_normal((6000, 16)).astype(np.float32)
    exact, index = both(Metric.L2, np.arange(3000), vectors[:3000])
    part = index._part
    assert part.due(index) is None
    rows = counting_rows(monkeypatch)
    for one in (exact, index):
        one.add(np.arange(3000, 3100), vectors[3000:3100])
        one.remove(np.arange(0, 60, 3))
    assert_same(exact, index, vectors[2900:3100], 5)
    assert part.due(index) is None
    for one in (exact, index):
        one.add(np.arange(3100, 3500), vectors[3100:3500])
    assert_same(exact, index, vectors[2900:3100], 5)
    assert part.due(index) == "rows without a code"
    assert rows == []
    coded(index)
    assert rows == [640, 640, 280]  # one where rows moved, one that was short, one that is new
    assert index._part.due(index) is None
    assert_same(exact, index, vectors[2900:3100], 5)
    rows.clear()
    for one in (exact, index):
        one.add(np.arange(3500, 6000), vectors[3500:])
    assert_same(exact, index, vectors[:50], 5)
    assert index._part.due(index) == "rows without a code"
    coded(index)
    assert sum(rows) == 5980 - 3200
    for one in (exact, index):
        one.add(np.arange(10_000, 10_500), vectors[:500] + 1)
    assert index._part.due(index) == "grown beyond the rows it was centred on"
    rows.clear()
    coded(index)
    assert sum(rows) == len(index)
    for one in (exact, index):
        one.remove(exact.ids()[:5500] if one is exact else np.setdiff1d(index.ids(), exact.ids()))
    assert_same(exact, index, vectors[1500:1550], 5)


def test_rows_changed_while_they_were_coded_are_compared_in_float32(small):
    """Removal moves rows into the places that it leaves, in front of the builder's eyes."""
    random = np.random.default_rng(8)
    vectors = random.standard_normal((1200, 16)).astype(np.float32)
    exact, index = (make_index(kind, width=16, metric=Metric.L2) for kind in ("exact", "auto"))
    for one in (exact, index):
        one.add(np.arange(1000), vectors[:1000])
    rounds = iter(range(100))

    def change(done, total):
        number = next(rounds)
        gone = np.arange(number * 20, number * 20 + 15)
        for one in (exact, index):
            one.remove(gone)
            one.add(gone[:7] + 5000, vectors[1000 + number * 7 : 1007 + number * 7])

    built = index.build(Plan("scan", "a test"), seed=0, progress=change)
    for one in (exact, index):
        one.remove([999, 998])
        one.add([998], vectors[1199:])
    assert not index.adopt(built)
    assert next(rounds) > 10
    assert index.structure == "scan"
    for k in (1, 9):
        assert_same(exact, index, vectors, k)
        assert_same(exact, index, vectors[:40], k, exact.ids()[::2])


@pytest.mark.usefixtures("small")
def test_rows_that_waited_when_the_codes_were_saved_get_theirs_with_the_next_build(tmp_path, monkeypatch):
    monkeypatch.setattr(codes, "UNCODED_MAX", 1000)  # else so many would have everything coded again
    random = np.random.default_rng(8)
    vectors = random.standard_normal((1100, 16)).astype(np.float32)
    exact, index = both(Metric.L2, np.arange(1000), vectors[:1000])
    for one in (exact, index):
        one.remove(np.arange(0, 300, 2))
        one.add(np.arange(1000, 1100), vectors[1000:])
    arrays, facts = index.export_arrays()
    write_arrays(tmp_path / "file", arrays, facts)
    again = make_index("auto", width=16, metric=Metric.L2)
    with open_arrays(tmp_path / "file") as file:
        again.restore(file, file.facts)
    for one in (index, again):
        assert one._part.lacking > 200
        assert_same(exact, one, vectors, 3)
        assert coded(one)._part.lacking == 0
        assert_same(exact, one, vectors, 3)


@pytest.mark.usefixtures("small")
def test_a_change_between_a_look_at_the_births_and_one_at_the_rows():
    """The rows lie elsewhere afterwards: whoever holds the older ones must not believe the newer births."""
    random = np.random.default_rng(8)
    vectors = random.standard_normal((1900, 16)).astype(np.float32)

    class Interrupted(AutoIndex):
        change = None

        def looked(self, column):
            values = column.values
            change, self.change = self.change, None
            if change:
                change()
            return values

        births_by_place = property(lambda self: self.looked(self._births))
        rows_by_place = property(lambda self: self.looked(self._searched))

    exact, index = make_index("exact", width=16, metric=Metric.L2), Interrupted(width=16, metric=Metric.L2)
    for one in (exact, index):
        one.add(np.arange(1000), vectors[:1000])

    def change():
        for one in (exact, index):
            one.remove(np.arange(0, 600, 2))
            one.add(np.arange(1000, 1900), vectors[1000:])

    index.change = change
    built = index.build(Plan("scan", "a test"), seed=0)
    assert len(index) == 1600
    index.adopt(built)
    assert_same(exact, index, vectors, 3)


def test_rows_that_no_code_can_hold_are_still_found(small):
    """So far away that their squared length, in units of the others, is beyond float32."""
    random = np.random.default_rng(9)
    vectors = (1e-9 * random.standard_normal((300, 8))).astype(np.float32)
    exact, index = both(Metric.L2, np.arange(300), vectors)
    far = np.full((3, 8), 1e17, dtype=np.float32)
    for one in (exact, index):
        one.add([1000, 1001, 1002], far)
    assert_same(exact, index, np.concatenate((vectors[:20], far)), 5)
    built = index.build(Plan("scan", "a test"), seed=0)
    if built is not None:
        index.adopt(built)
    assert_same(exact, index, np.concatenate((vectors[:20], far)), 5)


def test_the_stated_memory_is_what_is_kept():
    index = make_index("auto", width=64, metric=Metric.L2)
    index.add(np.arange(2000), np.random.default_rng(6).standard_normal((2000, 64)))
    before = index.memory_bytes
    coded(index)
    assert index.memory_bytes - before == 2000 * (64 + 33)
    index.remove(np.arange(2000))
    assert index.memory_bytes == 0
    assert index.structure == "flat"


def test_without_exact_products_there_are_no_codes(monkeypatch):
    monkeypatch.setattr(codes, "_checked", [False])
    vectors = np.random.default_rng(7).standard_normal((300, 8)).astype(np.float32)
    index = make_index("auto", width=8, metric=Metric.L2)
    index.add(np.arange(300), vectors)
    assert index.build(Plan("scan", "a test"), seed=0) is None
    assert not index.adopt(None)
    assert index.structure == "flat"


def test_products_that_are_not_exact_are_noticed(monkeypatch):
    real = torch_scan._packed
    monkeypatch.setattr(torch_scan, "_packed", lambda codes, scales: real(codes // 2 * 2, scales))
    assert not torch_scan.available()
