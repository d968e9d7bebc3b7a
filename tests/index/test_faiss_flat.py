"""The FAISS index against the judge, to the bit, and the proof that makes it so."""

import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Metric, faiss_flat, faiss_scan, make_index, set_threads, threads
from index.distances import distances_to_all, unit_rows
from index.faiss_flat import farthest_rough
from index.faiss_scan import rough_nearest


def both(metric, ids, vectors):
    pair = [make_index(kind, width=vectors.shape[1], metric=metric) for kind in ("exact", "flat")]
    for index in pair:
        index.add(ids, vectors)
    return pair


def assert_same(exact, flat, queries, k, allowed=None):
    one, other = (index.search(queries, k, allowed=allowed) for index in (exact, flat))
    np.testing.assert_array_equal(other.ids, one.ids)
    np.testing.assert_array_equal(other.distances, one.distances)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(Metric),
    n=st.integers(1, 400),
    width=st.integers(1, 9),
    levels=st.integers(1, 4),
    offset=st.sampled_from([0.0, 10.0, 4096.0]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e10]),
    n_queries=st.integers(0, 40),
    k=st.integers(1, 60),
    share=st.none() | st.floats(0, 1),
)
def test_equals_the_judge_on_lattices_full_of_ties(seed, metric, n, width, levels, offset, scale, n_queries, k, share):
    random = np.random.default_rng(seed)
    ids = random.permutation(4 * n)[:n]
    vectors = ((random.integers(-levels, levels + 1, (n, width)) + offset) * scale).astype(np.float32)
    queries = ((random.integers(-levels, levels + 1, (n_queries, width)) + offset) * scale).astype(np.float32)
    allowed = None if share is None else ids[random.random(n) < share]
    assert_same(*both(metric, ids, vectors), queries, k, allowed)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("spread", [1e-7, 1e-5, 1e-3, 1.0])
def test_equals_the_judge_in_tight_clusters(metric, spread):
    """Rows that a float32 product cannot tell apart, as pictures of one scene are."""
    random = np.random.default_rng(1)
    centre = random.random(128) + 0.5
    vectors = (centre + spread * random.standard_normal((900, 128))).astype(np.float32)
    exact, flat = both(metric, np.arange(900), vectors)
    for queries in (vectors[:2], vectors[:48]):
        for allowed in (None, np.arange(0, 900, 2)):
            assert_same(exact, flat, queries, 3, allowed)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("spread", [1e-7, 1.0])
def test_one_query_gets_the_bits_that_it_gets_among_others(metric, spread):
    """Near-ties, whose short lists prove nothing, and clear answers; ids in no order, all rows and some of them."""
    random = np.random.default_rng(6)
    vectors = (random.random(64) + spread * random.standard_normal((900, 64))).astype(np.float32)
    vectors[::50] = 0
    _, flat = both(metric, random.permutation(900), vectors)
    queries = np.concatenate([vectors[:60], random.standard_normal((20, 64)).astype(np.float32)])
    for allowed in (None, np.arange(0, 900, 2)):
        together = flat.search(queries, 4, allowed=allowed)
        for row, query in enumerate(queries):
            alone = flat.search(query[None], 4, allowed=allowed)
            assert alone.ids.tolist() == together.ids[row : row + 1].tolist()
            assert alone.distances.tolist() == together.distances[row : row + 1].tolist()
            assert (alone.ids.dtype, alone.distances.dtype) == (np.int64, np.float32)


def test_the_same_clusters_are_wrong_without_the_proof(monkeypatch):
    """The negative control: trusting the short list returns other rows, so the proof is needed."""
    random = np.random.default_rng(1)
    vectors = (random.random(128) + 0.5 + 1e-7 * random.standard_normal((900, 128))).astype(np.float32)
    exact, flat = both(Metric.L2, np.arange(900), vectors)
    right = exact.search(vectors[:48], 3).ids
    assert (flat.search(vectors[:48], 3).ids == right).all()
    monkeypatch.setattr(faiss_flat, "farthest_rough", lambda *_: np.float64(-np.inf))
    assert (flat.search(vectors[:48], 3).ids != right).any()


@pytest.mark.parametrize("metric", Metric)
def test_no_row_is_roughly_farther_than_the_bound(metric):
    """What the proof rests on, over rows near and far, one by one and by product."""
    random = np.random.default_rng(2)
    for width, offset, scale in ((3, 0, 1), (64, 50, 1), (512, 5, 1e-4), (512, 0, 1e6), (64, 1e4, 1)):
        rows = ((random.standard_normal((300, width)) + offset) * scale).astype(np.float32)
        rows[::2] *= random.random((150, 1), dtype=np.float32) * 3
        if metric is Metric.COSINE:
            rows = unit_rows(rows)
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        for n_queries in (1, 64):
            rough, places = rough_nearest(metric, rows[:n_queries], rows, 300)
            for query in range(n_queries):
                measured = distances_to_all(metric, rows[query], rows, places[query]).astype(np.float64)
                bound = farthest_rough(metric, width, lengths[query : query + 1], measured)
                assert (rough[query] <= bound).all()


@pytest.mark.parametrize("metric", Metric)
def test_a_clear_answer_needs_one_short_list(metric, monkeypatch):
    """The bound must not be so wide that it sends ordinary queries to the slow path."""
    random = np.random.default_rng(3)
    vectors = np.maximum(random.standard_normal((5000, 512)), 0).astype(np.float32)
    _, flat = both(metric, np.arange(5000), vectors)
    monkeypatch.setattr(faiss_flat, "SHORTLIST_MAX", 0)

    def refuse(*_):
        raise AssertionError("every row was measured")

    monkeypatch.setattr(faiss_flat, "distances_to_all", refuse)
    queries = np.maximum(random.standard_normal((100, 512)), 0)
    assert (flat.search(queries, 5).ids >= 0).all()
    with pytest.raises(AssertionError, match="every row"):
        flat.search(np.zeros((1, 512)) if metric is Metric.COSINE else queries[:1] * 1e-25 + 1e6, 5)


def test_long_lists_are_searched_in_parts(monkeypatch):
    random = np.random.default_rng(4)
    vectors = random.standard_normal((700, 8)).astype(np.float32)
    exact, flat = both(Metric.L2, np.arange(700), vectors)
    monkeypatch.setattr(faiss_flat, "LIST_PAIRS", 100)
    monkeypatch.setattr(faiss_flat, "MEASURED_PAIRS", 50)
    monkeypatch.setattr(faiss_flat, "COPIED_ROWS", 40)
    assert_same(exact, flat, vectors[:90], 6)
    assert_same(exact, flat, vectors[:90], 6, np.arange(1, 700, 2))


def test_the_thread_count_reaches_every_thread_and_is_given_back(monkeypatch):
    """OpenMP forgets it on threads other than the one that set it, and torch may share it."""
    seen = []
    compute = faiss.knn_L2sqr

    def watched(*arguments):
        seen.append(faiss.omp_get_max_threads())
        return compute(*arguments)

    monkeypatch.setattr(faiss, "knn_L2sqr", watched)
    monkeypatch.setattr(threads, "_threads", None)
    monkeypatch.setattr(faiss_scan, "SMALL_PRODUCT", 0)  # which one thread computes
    vectors = np.random.default_rng(5).standard_normal((200, 8)).astype(np.float32)
    _, flat = both(Metric.L2, np.arange(200), vectors)

    def search():
        faiss.omp_set_num_threads(5)
        flat.search(vectors[:5], 1)
        seen.append(faiss.omp_get_max_threads())

    for count in (3, 1):
        set_threads(count)
        seen.clear()
        worker = threading.Thread(target=search)
        worker.start()
        worker.join()
        assert seen == [count, 5]
    set_threads(3)
    seen.clear()
    flat.search(vectors[:1], 1)
    assert seen == [1]  # with more, one query takes longer
