"""The ranking figures equal scikit-learn's, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from benchmarks.errors import BenchmarkRefused
from benchmarks.metrics import average_precision, false_positive_rate_at, roc_auc

# Few distinct values, so that ties across both kinds are the rule.
SCORED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({strange for _, strange in pairs}) == 2
)


@given(SCORED)
def test_figures_equal_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, strange = np.array([pair[0] for pair in pairs], float), np.array([pair[1] for pair in pairs])
    assert roc_auc(scores, strange) == pytest.approx(roc_auc_score(strange, scores), abs=1e-12)
    assert average_precision(scores, strange) == pytest.approx(average_precision_score(strange, scores), abs=1e-12)
    false_positives, true_positives, _ = roc_curve(strange, scores, drop_intermediate=False)
    expected = false_positives[np.argmax(true_positives >= 0.95 - 1e-9)]
    assert false_positive_rate_at(scores, strange) == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    scores, strange = [1.0, 2.0, 2.0, 3.0], [False, False, True, True]
    assert roc_auc(scores, strange) == 0.875  # three pairs won, one tied, of four
    assert average_precision(scores, strange) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert false_positive_rate_at(scores, strange) == 0.5


def test_the_direction_matters() -> None:
    random = np.random.default_rng(0)
    scores = np.concatenate([random.normal(0, 1, 200), random.normal(2, 1, 200)])
    strange = np.arange(400) >= 200
    assert roc_auc(scores, strange) > 0.9
    assert roc_auc(-scores, strange) == pytest.approx(1 - roc_auc(scores, strange))
    assert false_positive_rate_at(scores, strange) < 0.6 < false_positive_rate_at(-scores, strange)


@pytest.mark.parametrize(
    ("scores", "strange", "sentence"),
    [
        ([1.0, 2.0], [True, True], "both kinds"),
        ([1.0, 2.0], [False, False], "both kinds"),
        ([1.0, float("nan")], [True, False], "finite"),
        ([1.0], [True, False], "one number per image"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores: list[float], strange: list[bool], sentence: str) -> None:
    for figure in (roc_auc, average_precision, false_positive_rate_at):
        with pytest.raises(BenchmarkRefused, match=sentence):
            figure(scores, strange)
