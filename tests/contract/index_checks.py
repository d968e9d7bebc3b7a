"""What every index must do, one function per promise; each fails with AssertionError."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from index import (
    CountMismatch,
    CountOutOfRange,
    IdInvalid,
    IdTaken,
    IdUnknown,
    Metric,
    NotFinite,
    VectorIndex,
    WidthMismatch,
    open_arrays,
    write_arrays,
)
from index.exact import ExactIndex
from tests.oracles.neighbours import disagreement

WIDTH = 12


@dataclass(frozen=True)
class Subject:
    """The index under test: how to make one, and where a file may stand."""

    make: Callable[..., VectorIndex]
    metric: Metric
    folder: Path

    def filled(self, ids, vectors) -> VectorIndex:
        index = self.make(width=vectors.shape[1], metric=self.metric)
        index.add(ids, vectors)
        return index


def draw(seed, n, width=WIDTH):
    """Rows in no order of id, with a few zero rows and a few repeated ones."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n, width)).astype(np.float32)
    vectors[::17] = 0
    vectors[3::11] = vectors[3]
    return random.permutation(3 * n)[:n].astype(np.int64), vectors


def same(one, other):
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.distances, other.distances)


def nearest_first_as_in_float64(subject):
    ids, vectors = draw(1, 150)
    index = subject.filled(ids, vectors)
    rows = dict(zip(ids.tolist(), vectors, strict=True))
    queries = np.concatenate((draw(2, 20)[1], vectors[:5]))
    for n_queries, k in ((25, 1), (25, 7), (2, 7), (25, 150)):
        found = index.search(queries[:n_queries], k)
        assert found.ids.dtype == np.int64
        assert found.distances.dtype == np.float32
        for query, at, far in zip(queries, found.ids, found.distances, strict=False):
            wrong = disagreement(rows, query, at.tolist(), far.tolist(), k, subject.metric, 2e-5)
            assert wrong is None, wrong


def equal_rows_by_lowest_id(subject):
    """More equal rows than any margin of a short list, and k ends among them."""
    random = np.random.default_rng(3)
    for n_equal in (30, 500):
        vectors = random.standard_normal((n_equal + 200, WIDTH)).astype(np.float32)
        vectors[:n_equal] = vectors[0]
        ids = random.permutation(10 * len(vectors))[: len(vectors)]
        index = subject.filled(ids, vectors)
        lowest = np.sort(ids[:n_equal])[:9]
        for queries in (vectors[:1], np.concatenate((vectors[:40], vectors[:1]))):
            assert (index.search(queries, 9).ids[:: len(queries)] == lowest).all()


def near_ties_in_their_true_order(subject):
    """Far from the origin, products lose the differences between rows; subtraction does not."""
    random = np.random.default_rng(4)
    offset = np.full(WIDTH, 64.0, dtype=np.float32)
    vectors = offset + random.integers(-8, 9, (400, WIDTH)).astype(np.float32) / 64
    index = subject.filled(np.arange(400), vectors)
    queries = offset + random.integers(-8, 9, (32, WIDTH)).astype(np.float32) / 64
    found = index.search(queries, 5)
    wide = vectors.astype(np.float64), queries.astype(np.float64)
    if subject.metric is Metric.COSINE:
        # Rounding to unit length is part of the contract, so the truth is that of the rounded rows.
        wide = tuple((a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32).astype(float) for a in wide)
    truth = ((wide[0][None] - wide[1][:, None]) ** 2).sum(axis=2)
    order = np.argsort(truth, axis=1, kind="stable")[:, :5]
    expected = np.take_along_axis(truth, order, axis=1)
    got = np.take_along_axis(truth, found.ids, axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    if subject.metric is Metric.L2:  # these squares are exact in float32, so ties are too
        assert (found.ids == order).all()


def same_alone_and_in_any_batch(subject):
    random = np.random.default_rng(5)
    for width in (5, 96, 9000):  # beyond 8192 numpy cuts some sums in the middle of a row
        vectors = random.standard_normal((90, width)).astype(np.float32) + 3
        index = subject.filled(np.arange(90), vectors)
        queries = random.standard_normal((64, width)).astype(np.float32) + 3
        together = index.search(queries, 4)
        for step in (1, 3, 21):
            for start in range(0, 64, step):
                part = index.search(queries[start : start + step], 4)
                assert np.array_equal(part.distances, together.distances[start : start + step])
                assert np.array_equal(part.ids, together.ids[start : start + step])


def callers_arrays_stay_the_callers(subject):
    ids, vectors = draw(6, 60)
    kept_ids, kept = ids.copy(), vectors.copy()
    index = subject.filled(ids, vectors)
    queries = kept[:9].copy()
    before = index.search(queries, 3, allowed=ids)
    assert np.array_equal(queries, kept[:9])
    assert np.array_equal(vectors, kept)
    assert np.array_equal(ids, kept_ids)
    vectors[:] = 7
    ids[:] = 7
    index.ids()[:] = 7
    index.vectors(kept_ids)[:] = 7
    assert np.array_equal(index.vectors(kept_ids), kept)
    assert same(index.search(queries, 3), before)


def vectors_come_back_as_added(subject):
    ids, vectors = draw(7, 60)
    unit = np.eye(WIDTH, dtype=np.float32)
    index = subject.filled(np.arange(1000, 1000 + WIDTH), unit)
    index.add(ids, vectors)
    index.remove(ids[:20])
    wanted = np.concatenate((ids[:19:-1], [1003]))
    assert np.array_equal(index.vectors(wanted), np.concatenate((vectors[:19:-1], unit[3:4])))
    with pytest.raises(IdUnknown):
        index.vectors([1003, int(ids[0])])


def refusals_change_nothing(subject):
    ids, vectors = draw(8, 40)
    index = subject.filled(ids, vectors)
    new = np.arange(200, 203)
    good = np.ones((3, WIDTH), dtype=np.float32)
    poisoned = {}
    for value in (np.nan, np.inf, -np.inf, 1e30):
        poisoned[value] = good.copy()
        poisoned[value][2, 1] = value
    for error, bad_ids, bad in (
        (WidthMismatch, new, good[:, :-1]),
        (WidthMismatch, new, good[0]),
        (CountMismatch, new[:2], good),
        (IdInvalid, [200, 201, -1], good),
        (IdInvalid, [200.0, 201.5, 202.0], good),
        (IdTaken, [200, 201, ids[0]], good),
        (IdTaken, [200, 201, 200], good),
        (NotFinite, new, good.astype(str)),
        *((NotFinite, new, rows) for rows in poisoned.values()),
    ):
        with pytest.raises(error):
            index.add(bad_ids, bad)
        assert len(index) == 40
    assert np.array_equal(index.ids(), np.sort(ids))
    assert index.search(good, 41).ids[:, 40].tolist() == [-1] * 3
    for error, queries, k in (
        (WidthMismatch, good[:, :-1], 1),
        (WidthMismatch, good[0], 1),
        (CountOutOfRange, good, 0),
        (CountOutOfRange, good, 1.5),
        (CountOutOfRange, good, True),
        *((NotFinite, rows, 1) for rows in poisoned.values()),
    ):
        with pytest.raises(error):
            index.search(queries, k)


def short_answers_are_padded(subject):
    ids, vectors = draw(9, 5)
    index = subject.make(width=WIDTH, metric=subject.metric)
    for filled in (0, 5):
        if filled:
            index.add(ids, vectors)
        for allowed, n in ((None, filled), ([], 0), (ids[:2], min(2, filled)), ([10**9], 0)):
            found = index.search(vectors, 8, allowed=allowed)
            assert found.ids.shape == found.distances.shape == (5, 8)
            assert (found.ids[:, n:] == -1).all()
            assert np.isposinf(found.distances[:, n:]).all()
            assert np.isfinite(found.distances[:, :n]).all()
            assert (found.ids[:, :n] >= 0).all()
        assert index.search(vectors[:0], 3).ids.shape == (0, 3)


def allowed_restricts(subject):
    ids, vectors = draw(10, 1500)
    index = subject.filled(ids, vectors)
    random = np.random.default_rng(10)
    for n_allowed in (1, 30, 120, 1400):
        chosen = random.permutation(1500)[:n_allowed]
        alone = subject.filled(ids[chosen], vectors[chosen])
        allowed = np.concatenate((ids[chosen], ids[chosen][:3], [10**12, -5]))
        for n_queries in (1, 2, 30):
            queries = vectors[:n_queries]
            assert same(index.search(queries, 6, allowed=allowed), alone.search(queries, 6))


def removal_leaves_no_trace(subject):
    ids, vectors = draw(11, 400)
    stay = np.arange(400) % 3 == 0
    clean = subject.filled(ids[stay], vectors[stay])
    index = subject.filled(ids, vectors)
    gone = ids[~stay]
    assert index.remove(gone[:100]) == 100
    assert index.remove(np.concatenate((gone[90:], gone[:5], gone[-5:], [10**12]))) == len(gone) - 100
    assert index.remove([]) == 0
    assert len(index) == stay.sum()
    assert np.array_equal(index.ids(), clean.ids())
    assert same(index.search(vectors, 9), clean.search(vectors, 9))
    with pytest.raises(IdUnknown):
        index.vectors(gone[:1])
    index.add(gone, vectors[~stay])
    assert same(index.search(vectors, 9), subject.filled(ids, vectors).search(vectors, 9))
    assert index.remove(ids) == 400
    assert len(index) == 0
    assert (index.search(vectors[:3], 2).ids == -1).all()


def ids_ascend(subject):
    ids, vectors = draw(12, 50)
    index = subject.filled(ids[:30], vectors[:30])
    index.add(ids[30:], vectors[30:])
    assert index.ids().dtype == np.int64
    assert np.array_equal(index.ids(), np.sort(ids))


def snapshots_answer_the_same(subject):
    ids, vectors = draw(13, 120)
    index = subject.filled(ids, vectors)
    index.remove(ids[::5])
    path = subject.folder / "an.index"
    arrays, facts = index.export_arrays()
    write_arrays(path, arrays, facts)
    loaded = subject.make(width=WIDTH, metric=subject.metric)
    with open_arrays(path) as file:
        loaded.restore(file, file.facts)
    assert np.array_equal(loaded.ids(), index.ids())
    assert np.array_equal(loaded.vectors(loaded.ids()), index.vectors(index.ids()))
    assert same(loaded.search(vectors, 8), index.search(vectors, 8))
    for one in (loaded, index):
        one.remove(ids[1::5])
        one.add([10**6, 10**6 + 1], vectors[[2, 0]])
    assert same(loaded.search(vectors, 8, exact=True), index.search(vectors, 8, exact=True))


def threads_agree(subject):
    ids, vectors = draw(14, 300)
    index = subject.filled(ids, vectors)
    batches = [vectors[start : start + 10] for start in range(0, 300, 10)]
    alone = [index.search(batch, 5) for batch in batches]
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        return all(same(index.search(batch, 5), right) for batch, right in zip(batches, alone, strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def exact_answers_on_request(subject):
    ids, vectors = draw(16, 700)
    judge = ExactIndex(width=WIDTH, metric=subject.metric)
    judge.add(ids, vectors)
    index = subject.filled(ids, vectors)
    for allowed in (None, np.sort(ids[:300])):
        for queries in (vectors[:1], vectors[:40]):
            right = judge.search(queries, 6, allowed=allowed)
            assert same(index.search(queries, 6, allowed=allowed, exact=True), right)


def extreme_lengths_are_measured(subject):
    """Nothing overflows, and direction counts for cosine however short or long the vector."""
    directions = np.eye(3, WIDTH, dtype=np.float32)
    for scale in (1e-40, 1e-20, 1e-3, 1e17):
        vectors = (directions * np.float64(scale)).astype(np.float32)
        index = subject.filled(np.arange(3), np.concatenate((vectors[:2], -vectors[:1])))
        found = index.search(vectors[:1], 3)
        assert np.isfinite(found.distances).all()
        if subject.metric is Metric.COSINE:
            assert found.ids.tolist() == [[0, 1, 2]]
            assert found.distances.tolist() == [[0.0, 1.0, 2.0]]
        elif scale >= 1e-3:
            np.testing.assert_allclose(found.distances[0], np.array([0.0, 2**0.5, 2.0]) * scale, rtol=1e-6)


def zero_is_at_one_from_everything(subject):
    vectors = np.zeros((100, WIDTH), dtype=np.float32)
    vectors[:60, 0] = -1
    vectors[:10, 0] = 1
    index = subject.filled(np.arange(100)[::-1], vectors)
    found = index.search(np.eye(2, WIDTH, dtype=np.float32) * [[1], [0]], 100)
    if subject.metric is Metric.COSINE:
        assert found.distances[0].tolist() == [0.0] * 10 + [1.0] * 40 + [2.0] * 50
        assert found.distances[1].tolist() == [1.0] * 100
        assert found.ids[1].tolist() == list(range(100))
    else:
        assert found.distances[0].tolist() == [0.0] * 10 + [1.0] * 40 + [2.0] * 50
        assert found.distances[1].tolist() == [0.0] * 40 + [1.0] * 60


def global_randomness_is_untouched(subject):
    before = np.random.get_state()[1].copy()
    ids, vectors = draw(15, 100)
    subject.filled(ids, vectors).search(vectors, 3)
    assert np.array_equal(np.random.get_state()[1], before)


CHECKS = (
    nearest_first_as_in_float64,
    equal_rows_by_lowest_id,
    near_ties_in_their_true_order,
    same_alone_and_in_any_batch,
    callers_arrays_stay_the_callers,
    vectors_come_back_as_added,
    refusals_change_nothing,
    short_answers_are_padded,
    allowed_restricts,
    removal_leaves_no_trace,
    ids_ascend,
    snapshots_answer_the_same,
    threads_agree,
    exact_answers_on_request,
    extreme_lengths_are_measured,
    zero_is_at_one_from_everything,
    global_randomness_is_untouched,
)
