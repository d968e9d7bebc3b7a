"""The promises of `VectorIndex`, on every kind that the factory makes; and broken indexes that must be caught."""

from functools import partial

import pytest

from index import KINDS, KindUnknown, Metric, choose_kind, make_index
from index.exact import ExactIndex
from tests.contract.broken_indexes import BROKEN
from tests.contract.index_checks import CHECKS, Subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps(kind, metric, check, tmp_path):
    check(Subject(partial(make_index, kind), metric, kind, tmp_path))


@pytest.mark.parametrize(("broken", "metric", "check"), BROKEN, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_broken_index_is_caught(broken, metric, check, tmp_path):
    check(Subject(ExactIndex, metric, "exact", tmp_path))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Subject(broken, metric, "exact", tmp_path))


def test_every_check_has_a_broken_index():
    assert {check for _, _, check in BROKEN} == set(CHECKS)


def test_an_unknown_kind_is_refused():
    with pytest.raises(KindUnknown, match=r"exact, flat, .*; got 'annoy'"):
        make_index("annoy", width=3, metric=Metric.L2)


def test_the_kind_follows_rows_and_memory():
    raw = 512 * 4
    for rows, bytes_each, kind in (
        (500, raw, "flat"),
        (100_000, 2 * raw, "scan"),
        (100_000, int(1.1 * raw), "flat"),
        (1_000_000, 2 * raw, "hnsw"),
        (1_000_000, int(1.15 * raw), "ivf"),
        (1_000_000, raw, "flat"),
    ):
        assert choose_kind(rows, 512, rows * bytes_each) == kind
        index = make_index(kind, width=4, metric=Metric.L2)
        assert len(index) == 0
