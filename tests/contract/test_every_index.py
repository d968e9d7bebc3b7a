"""The promises of `VectorIndex`, on every kind that the factory makes; and broken indexes that must be caught."""

from functools import partial

import pytest

from index import KINDS, KindUnknown, Metric, make_index
from index.exact import ExactIndex
from tests.contract.broken_indexes import BROKEN
from tests.contract.index_checks import CHECKS, Subject
from tests.index.auto_states import in_state, small_codes, small_structures

# The order of rows within a rounding of one another, and which of many equal rows is found: a structure may choose.
OF_EXACT_ANSWERS = {
    "nearest_first_as_in_float64",
    "near_ties_in_their_true_order",
    "equal_rows_by_lowest_id",
    "zero_is_at_one_from_everything",
    "allowed_restricts",
    "removal_leaves_no_trace",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps(kind, metric, check, tmp_path):
    check(Subject(partial(make_index, kind), metric, tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("metric", Metric)
def test_auto_with_codes_keeps(metric, check, tmp_path, monkeypatch):
    small_codes(monkeypatch)
    check(Subject(partial(in_state, "scan"), metric, tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("state", ["hnsw", "ivf"])
def test_auto_with_a_structure_keeps(state, metric, check, tmp_path, monkeypatch):
    """What a structure may miss it must find where an exact answer is asked for; all else it keeps as it is."""
    small_structures(monkeypatch)
    exact = check.__name__ in OF_EXACT_ANSWERS
    check(Subject(partial(in_state, state, exact=exact), metric, tmp_path))


@pytest.mark.parametrize(("broken", "metric", "check"), BROKEN, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_broken_index_is_caught(broken, metric, check, tmp_path):
    check(Subject(ExactIndex, metric, tmp_path))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Subject(broken, metric, tmp_path))


def test_every_check_has_a_broken_index():
    assert {check for _, _, check in BROKEN} == set(CHECKS)


def test_an_unknown_kind_is_refused():
    with pytest.raises(KindUnknown, match=r"exact, flat, .*; got 'annoy'"):
        make_index("annoy", width=3, metric=Metric.L2)
