"""Structures that may miss: the recall they earn, what they never do, and how they follow additions and removals."""

import threading

import numpy as np
import pytest

from index import Metric, make_index
from index.approximate import Effort
from index.auto import Plan
from tests.index.auto_states import small_structures

WIDTH = 32
KINDS = ("hnsw", "ivf")
ROWS = 4000


def clustered(seed, n, width=WIDTH, spread=0.5):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, width))
    return (centres[random.integers(0, 40, n)] + spread * random.standard_normal((n, width))).astype(np.float32)


def pair(kind, n=ROWS, metric=Metric.L2, seed=1):
    """An exact index and one with an adopted structure, over the same rows."""
    vectors = clustered(seed, n)
    exact, index = (make_index(one, width=WIDTH, metric=metric) for one in ("flat", "auto"))
    for one in (exact, index):
        one.add(np.arange(n) * 3, vectors)
    assert index.adopt(built(index, kind))
    return exact, index


def built(index, kind, seed=5):
    return index.build(Plan(kind, "a test"), seed=seed)


def recall(exact, index, queries, k=10, allowed=None):
    one, other = (index.search(queries, k, allowed=allowed) for index in (exact, index))
    return float((one.ids[:, :, None] == other.ids[:, None, :]).any(axis=2).mean())


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("kind", KINDS)
def test_the_promised_recall_is_reached_on_other_queries(kind, metric):
    exact, index = pair(kind, metric=metric)
    queries = clustered(2, 300)
    assert index.describe()["recall"] >= index.describe()["recall_lower"] >= 0.99
    assert recall(exact, index, queries) >= 0.985
    assert recall(exact, index, queries[:40], k=50) >= 0.97
    found, true = (one.search(queries, 10) for one in (index, exact))
    same = found.ids == true.ids
    assert np.array_equal(found.distances[same], true.distances[same])  # to the bit


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_comes_from_the_structure(kind, monkeypatch):
    """The negative control: with the least effort recall falls, so the structure was asked and tuning matters."""
    exact, index = pair(kind)
    queries = clustered(2, 300)
    monkeypatch.setattr(index._part, "_effort", Effort(1, 10))
    assert recall(exact, index, queries) < 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_that_misses_the_bar_is_not_adopted(kind):
    """Rows without any neighbourhood, and an index that demands more than a sample can prove."""
    index = make_index("auto", width=WIDTH, metric=Metric.L2)
    vectors = np.random.default_rng(3).standard_normal((3000, WIDTH)).astype(np.float32)
    index.add(np.arange(3000), vectors)
    index.recall = 0.9999
    assert built(index, kind) is None
    assert not index.adopt(None)
    assert index.structure == "flat"
    exact = make_index("flat", width=WIDTH, metric=Metric.L2)
    exact.add(np.arange(3000), vectors)
    assert recall(exact, index, vectors[:50] + 0.1) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_builds_the_same(kind):
    queries = clustered(2, 200)
    one, other = (pair(kind)[1] for _ in range(2))
    assert one._part.effort == other._part.effort
    assert one.describe() == other.describe()
    low = Effort(1, 12)
    assert np.array_equal(
        *(index._part._candidates.search(queries, low, None) for index in (one, other)),
    )


def alive_and_dead(index):
    told = index.describe()
    return told["alive"], told["dead"]


@pytest.mark.parametrize("kind", KINDS)
def test_removed_rows_are_dead_at_once_and_due_for_a_rebuild(kind):
    exact, index = pair(kind)
    queries = clustered(2, 200)
    gone = np.unique(exact.search(queries, 5).ids)
    assert index._part.due(index) is None
    for one in (exact, index):
        assert one.remove(gone) == len(gone)
        one.add(gone[:50], clustered(7, 50))
    assert alive_and_dead(index) == (ROWS - len(gone) + 50, len(gone))
    assert not np.isin(index.search(queries, 10).ids, gone[50:]).any()
    assert recall(exact, index, queries) >= 0.98
    for one in (exact, index):
        one.remove(exact.ids()[::3] if one is exact else np.setdiff1d(index.ids(), exact.ids()))
    assert index._part.due(index) == "many dead entries"
    assert index.adopt(built(index, kind, seed=1))
    assert alive_and_dead(index) == (len(exact), 0)
    assert index._part.due(index) is None
    assert recall(exact, index, queries) >= 0.98
    index.remove(index.ids())
    assert index.structure == "flat"
    assert alive_and_dead(index) == (0, 0)
    assert (index.search(queries, 3).ids == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_may_change_while_a_structure_is_built(kind):
    """What was removed, replaced or added between build and adoption is found or not as the rows now say."""
    vectors = clustered(1, ROWS)
    exact, index = (make_index(one, width=WIDTH, metric=Metric.L2) for one in ("flat", "auto"))
    for one in (exact, index):
        one.add(np.arange(ROWS), vectors)
    made = built(index, kind)
    fresh = clustered(8, 700)
    for one in (exact, index):
        one.remove(np.arange(0, 900))
        one.add(np.arange(300, 1000 - 100), fresh[:600])  # ids used again, for other rows
        one.add(np.arange(9000, 9100), fresh[600:])
    assert index.adopt(made)
    assert alive_and_dead(index) == (ROWS - 200, 900)
    assert recall(exact, index, fresh) >= 0.98
    assert recall(exact, index, vectors[:900]) >= 0.98
    near = index.search(fresh, 1)
    assert (near.distances == 0).mean() >= 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_searches_go_on_while_a_structure_is_built(kind):
    _, index = pair(kind)
    queries = clustered(2, 20)
    before = index.search(queries, 5)
    outcome = []
    builder = threading.Thread(target=lambda: outcome.append(built(index, kind, seed=6)))
    builder.start()
    rounds = 0
    while builder.is_alive() or not rounds:
        assert np.array_equal(index.search(queries, 5).ids, before.ids)
        rounds += 1
    builder.join()
    assert index.adopt(outcome[0])


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_never_returns_fewer_than_there_are(kind, share, monkeypatch):
    small_structures(monkeypatch)  # even where the structure itself must find them
    exact, index = pair(kind)
    queries = clustered(2, 60)
    n = int(ROWS * share)
    by_chance = np.random.default_rng(4).permutation(exact.ids())[:n]
    far = exact.search(queries[:1], ROWS).ids[0, -n:]  # all of them far from the first query
    for allowed in (by_chance, far):
        found = index.search(queries, 10, allowed=allowed)
        assert ((found.ids >= 0).sum(axis=1) == min(10, n)).all()
        assert np.isin(found.ids[found.ids >= 0], allowed).all()
    assert recall(exact, index, queries, allowed=by_chance) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_few_allowed_rows_are_all_compared(kind):
    exact, index = pair(kind)
    queries = clustered(2, 60)
    assert recall(exact, index, queries, allowed=exact.ids()[:3000]) == 1.0


def test_a_width_that_is_no_multiple_of_four():
    vectors = np.random.default_rng(1).standard_normal((2000, 3)).astype(np.float32)
    exact, index = (make_index(one, width=3, metric=Metric.L2) for one in ("flat", "auto"))
    for one in (exact, index):
        one.add(np.arange(2000), vectors)
    assert index.adopt(built(index, "ivf"))
    assert recall(exact, index, vectors[:200] + 0.01) >= 0.98


@pytest.mark.parametrize("times", [4.0, 1e6])
def test_queries_far_outside_of_all_rows_are_answered_exactly(times):
    """Bytes end where the rows do: of a query beyond, they would tell the direction alone, and wrongly."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(20, 32))
    rows = (centres[random.integers(0, 20, 1500)] + 0.3 * random.normal(size=(1500, 32))).astype(np.float32)
    index = make_index("auto", width=32, metric=Metric.L2)
    index.add(np.arange(1500), rows)
    index.adopt(index.build(Plan("hnsw", "a test"), seed=0))
    assert index.structure == "hnsw"
    queries = (times * random.normal(size=(40, 32)) + 10 * times).astype(np.float32)
    for asked in (queries, queries[:1]):
        found, true = index.search(asked, 10), index.search(asked, 10, exact=True)
        assert np.array_equal(found.ids, true.ids)
    near = index._part._candidates.search(rows[:50], Effort(24, 24), None)
    assert (near >= 0).all(), "those among the rows are not"
