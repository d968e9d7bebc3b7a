"""Three vectors whose answer fits on paper, for the oracle and the judge alike."""

import math

import numpy as np
import pytest

from index import Metric, make_index
from tests.oracles.neighbours import disagreement, nearest

ROWS = {5: [3.0, 4.0], 2: [0.0, 2.0], 9: [0.0, -2.0]}


@pytest.mark.parametrize(
    ("metric", "query", "expected"),
    [
        ("l2", [0.0, 0.0], [(2.0, 2), (2.0, 9), (5.0, 5)]),
        ("l2", [3.0, 0.0], [(math.sqrt(13), 2), (math.sqrt(13), 9), (4.0, 5)]),
        ("cosine", [0.0, 1.0], [(0.0, 2), (0.2, 5), (2.0, 9)]),
        ("cosine", [0.0, 0.0], [(1.0, 2), (1.0, 5), (1.0, 9)]),
    ],
)
def test_by_hand(metric, query, expected):
    expected = sorted(expected)
    oracle = nearest(ROWS, query, 3, metric)
    assert [i for _, i in oracle] == [i for _, i in expected]
    assert [d for d, _ in oracle] == pytest.approx([d for d, _ in expected])
    index = make_index("exact", width=2, metric=Metric(metric))
    index.add(list(ROWS), list(ROWS.values()))
    found = index.search([query], 3)
    assert found.ids[0].tolist() == [i for _, i in expected]
    assert found.distances[0].tolist() == pytest.approx([d for d, _ in expected], rel=1e-6)


@pytest.mark.parametrize(
    ("ids", "distances"),
    [
        ([9, 2, 5, -1], [2.0, 2.0, 5.0, np.inf]),
        ([2, 9, 5, -1], [2.0, 2.1, 5.0, np.inf]),
        ([2, 5, 9, -1], [2.0, 2.0, 5.0, np.inf]),
        ([2, 9, 9, -1], [2.0, 2.0, 5.0, np.inf]),
        ([2, 9, 5, 5], [2.0, 2.0, 5.0, 5.0]),
    ],
)
def test_the_judge_of_answers_sees_each_mistake(ids, distances):
    assert disagreement(ROWS, [0, 0], [2, 9, 5, -1], [2.0, 2.0, 5.0, np.inf], 4, "l2", 1e-6) is None
    assert disagreement(ROWS, [0, 0], ids, distances, 4, "l2", 1e-6) is not None
