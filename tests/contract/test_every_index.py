"""The promises of `VectorIndex`, on every kind that the factory makes; and broken indexes that must be caught."""

from functools import partial

import pytest

from index import KINDS, KindUnknown, Metric, make_index
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
    with pytest.raises(KindUnknown, match="exact, flat, scan.*; got 'annoy'"):
        make_index("annoy", width=3, metric=Metric.L2)
