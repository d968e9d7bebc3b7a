"""Gradients that scorers give of themselves are those of their scores, measured by small steps."""

from collections.abc import Callable

import numpy as np
import pytest

from index import Metric
from models.catalog import installed
from models.contract import Inputs, SlopeGiver
from models.methods.dn2 import DN2Params, LiveDN2
from models.methods.few_shot_lr import FewShotLRParams, FittedClasses, LiveFewShotLR
from tests.contract.method_world import CLEAN, DEFECTS, Subject

WIDTH = 12
FITTED = [name for name in installed() if not installed()[name].live]


def measured(score: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How much each score changes along its direction, for a step of one."""
    step = 2e-3 * np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(directions, axis=1, keepdims=True)
    forth, back = (score((vectors + sign * step * directions).astype(np.float32)) for sign in (1, -1))
    return (forth.astype(np.float64) - back) / (2 * step[:, 0])


def check(
    score: Callable[[np.ndarray], np.ndarray], slopes: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray
) -> None:
    found = slopes(vectors)
    assert found.shape == vectors.shape and np.isfinite(found).all()
    random = np.random.default_rng(5)
    directions = [random.normal(size=vectors.shape), found]
    for direction in directions:
        told = (found * direction).sum(axis=1)
        scale = np.linalg.norm(found, axis=1) * np.linalg.norm(direction, axis=1)
        steps = measured(score, vectors, direction)
        assert (np.abs(told - steps) <= 0.03 * scale).all(), (told, steps, scale)
    # Negative control: the gradients of other images would not pass.
    rolled = (np.roll(found, 1, axis=0) * directions[1]).sum(axis=1)
    assert (np.abs(rolled - steps) > 0.03 * scale).any()


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_scorers_slopes_are_its_scores_gradient(name: str) -> None:
    if "slopes" not in dir(installed().method(name).fit.__annotations__["return"]):
        return
    one = Subject(installed()[name], installed().method(name))
    scorer = one.scorer
    assert isinstance(scorer, SlopeGiver)
    vectors = one.inputs([*CLEAN[:3], *DEFECTS[:3]]).vectors
    assert vectors is not None

    def inputs(rows: np.ndarray) -> Inputs:
        return Inputs(ids=np.arange(len(rows)), vectors=rows)

    def slopes(rows: np.ndarray) -> np.ndarray:
        found = scorer.slopes(inputs(rows)).vectors
        assert found is not None
        return found

    check(lambda rows: scorer.score(inputs(rows)).image, slopes, vectors)


def test_there_is_a_fitted_scorer_with_slopes() -> None:
    assert any("slopes" in dir(installed().method(name).fit.__annotations__["return"]) for name in FITTED)


@pytest.mark.parametrize("taught", [0, 3])
@pytest.mark.parametrize(("metric", "normalize"), [(Metric.COSINE, False), (Metric.L2, False), (Metric.L2, True)])
def test_slopes_of_nearest_neighbours(metric: Metric, normalize: bool, taught: int) -> None:
    random = np.random.default_rng(taught)
    scorer = LiveDN2(width=WIDTH, params=DN2Params(k=3, metric=metric, normalize=normalize))
    bank = random.normal(size=(20, WIDTH)).astype(np.float32)
    queries = (4.0 * random.normal(size=(6, WIDTH))).astype(np.float32)
    scorer.add_normal(np.arange(20), np.arange(20, dtype=np.uint64), bank)
    # Defects near some of the queries, so that they weigh their scores, and not at them.
    scorer.add_anomalous(
        np.arange(100, 100 + taught), queries[:taught] + 1.0 * random.normal(size=(taught, WIDTH)).astype(np.float32)
    )
    found = scorer.score(queries)
    assert (found.score > found.plain).sum() >= min(taught, 1)
    check(lambda rows: scorer.score(rows).score, lambda rows: scorer.slopes(rows), queries)


def test_a_stored_image_slopes_without_itself_and_at_a_neighbour_there_is_no_slope() -> None:
    random = np.random.default_rng(3)
    scorer = LiveDN2(width=WIDTH, params=DN2Params(k=1))
    bank = random.normal(size=(5, WIDTH)).astype(np.float32)
    scorer.add_normal(np.arange(5), np.arange(5, dtype=np.uint64), bank)
    own = np.arange(5)
    check(lambda rows: scorer.score(rows, exclude=own).score, lambda rows: scorer.slopes(rows, exclude=own), bank)
    assert np.abs(scorer.slopes(bank)).max() < 1e-6  # every image is its own nearest: the distance is at its least


@pytest.fixture(scope="module")
def classes() -> FittedClasses:
    random = np.random.default_rng(4)
    live = LiveFewShotLR(width=WIDTH, params=FewShotLRParams())
    middles = random.normal(size=(3, WIDTH))
    vectors = (np.repeat(middles, 6, axis=0) + 0.8 * random.normal(size=(18, WIDTH))).astype(np.float32)
    live.add(np.arange(18), np.arange(18, dtype=np.uint64), ["a"] * 6 + ["b"] * 6 + ["c"] * 6, vectors)
    return live.fitted()


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("label", ["a", "b", "c", None])
def test_slopes_of_classes(classes: FittedClasses, label: str | None, is_stored: bool) -> None:
    own = np.array([0, 7, 14, 3]) if is_stored else None
    queries = classes.examples.vectors[[0, 7, 14, 3]]
    if not is_stored:
        queries = queries + np.random.default_rng(6).normal(size=queries.shape).astype(np.float32)

    def score(rows: np.ndarray) -> np.ndarray:
        found = classes.classify(rows, exclude=own)
        return found.score if label is None else found.probabilities[:, classes.labels.index(label)]

    check(score, lambda rows: classes.slopes(rows, label=label, exclude=own), queries)
