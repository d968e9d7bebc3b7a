"""Near none of the classes: the distance, and what its p-value promises."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.judging import make_calibration, p_values
from models.methods.few_shot_lr import FewShotLRParams, LiveFewShotLR
from models.methods.few_shot_lr.open_set import ClassDistances, cosine_distances
from tests.oracles import few_shot_lr as oracle

WIDTH = 6


def fitted(vectors: np.ndarray, labels: Sequence[str], groups: Sequence[str | None] | None = None, k: int = 3):
    made = LiveFewShotLR(width=vectors.shape[1], params=FewShotLRParams(k=k))
    ids = np.arange(len(labels))
    made.add(ids, ids.astype(np.uint64), labels, vectors, groups)
    return made.fitted()


def drawn(random: np.random.Generator, centres: np.ndarray, classes: np.ndarray, spread: float = 0.5) -> np.ndarray:
    noise = random.normal(0, spread, (classes.size, centres.shape[1]))
    return (centres[classes] + noise).astype(np.float32)


def test_by_hand() -> None:
    # Directions in the plane, in degrees: class a at 0, 10 and 60; class b at 90.
    angles = np.deg2rad([0, 10, 60, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = fitted(vectors, ["a", "a", "a", "b"], k=2)
    query = np.array([[3.0, 0.0]], np.float32)

    def cos(degrees: float) -> float:
        return float(np.cos(np.deg2rad(degrees)))

    # To a: mean of 1 - cos 0 and 1 - cos 10. To b, which has one image: 1 - cos 90.
    assert found.classify(query).score[0] == pytest.approx((2 - cos(0) - cos(10)) / 2, abs=1e-6)
    # Left out: 0 sees 10 and 60; 10 sees 0 and 60; 60 is nearer to b at 90. b's image calibrates nothing.
    expected = sorted([(2 - cos(10) - cos(60)) / 2, (2 - cos(10) - cos(50)) / 2, 1 - cos(30)])
    np.testing.assert_allclose(np.sort(found.calibration_scores), expected, atol=1e-6)
    assert found.single() == ["b"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    k=st.integers(1, 5),
    grouped=st.floats(0, 1),
)
def test_scores_equal_the_double_loop(seed: int, counts: list[int], k: int, grouped: float) -> None:
    random = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(counts)), counts)
    vectors = random.normal(size=(classes.size, WIDTH)).astype(np.float32)
    labels = [f"c{number}" for number in classes]
    groups = [f"g{random.integers(3)}" if random.random() < grouped else None for _ in classes]
    found = fitted(vectors, labels, groups, k)
    asked = random.normal(size=(4, WIDTH)).astype(np.float32)
    expected = [oracle.score(one, vectors, labels, groups, k) for one in asked]
    np.testing.assert_allclose(found.classify(asked).score, expected, atol=2e-6)
    left_out = oracle.calibration(vectors, labels, groups, k)
    np.testing.assert_allclose(np.sort(found.calibration_scores), np.sort(left_out), atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 30), k=st.integers(1, 4))
def test_an_example_more_never_raises_a_score(seed: int, n: int, k: int) -> None:
    """What the promise rests on, with the neighbours looked at held fixed."""
    random = np.random.default_rng(seed)
    classes = np.sort(np.concatenate([np.arange(3), np.arange(3), random.integers(0, 3, n)]))
    units = random.normal(size=(classes.size, WIDTH)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    distances = ClassDistances(classes, [None] * classes.size, k)
    asked = cosine_distances(units, units)
    np.fill_diagonal(asked, np.inf)
    one = int(random.integers(classes.size))
    hidden = asked.copy()
    hidden[:, one] = np.inf
    others = np.arange(classes.size) != one
    with_it, without = (distances.to_classes(given).min(axis=1) for given in (asked, hidden))
    assert (with_it <= without)[others].all()
    # Not for want of influence: what lies where the example lies comes nearer, had its class no other just there.
    there = distances.to_classes(
        np.stack([np.where(others, 2.0, 0.0), np.where(others, 2.0, np.inf)]).astype(np.float32)
    )
    assert there[0].min() < there[1].min()


def alarm_rates(
    shots: int, n_classes: int, rate: float, runs: int, *, left_out: bool = True, wide: float = 1.0
) -> tuple[float, float, float]:
    """Share of new images of known classes called unknown, of strangers, and the share promised."""
    random = np.random.default_rng(77)
    classes = np.repeat(np.arange(n_classes), shots)
    known, strangers = [], []
    for _ in range(runs):
        centres = random.normal(size=(n_classes + 1, 12)) * 1.2
        spread = np.ones(n_classes)
        spread[0] = wide
        vectors = centres[classes] + random.normal(size=(classes.size, 12)) * 0.6 * spread[classes, None]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        units = units.astype(np.float32)
        made = ClassDistances(classes, [None] * classes.size, 3)
        if left_out:
            _, scores = made.calibration(units, classes, random.integers(0, 2**62, classes.size).astype(np.uint64))
        else:
            scores = made.to_classes(cosine_distances(units, units)).min(axis=1)
        own = int(random.integers(n_classes))
        asked = np.stack(
            [
                centres[own] + random.normal(size=12) * 0.6 * spread[own],
                centres[n_classes] + random.normal(size=12) * 0.6,
            ]
        )
        asked = (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32)
        border = make_calibration(scores, rate)
        p = p_values(made.to_classes(cosine_distances(asked, units)).min(axis=1), scores)
        known.append(p[0] <= border.false_alarm_rate)
        strangers.append(p[1] <= border.false_alarm_rate)
    return float(np.mean(known)), float(np.mean(strangers)), border.false_alarm_rate


@pytest.mark.parametrize(("shots", "n_classes", "wide"), [(5, 10, 1.0), (3, 20, 2.5), (12, 2, 1.0)])
def test_known_images_are_called_unknown_no_more_often_than_promised(shots: int, n_classes: int, wide: float) -> None:
    runs = 600
    observed, found, promised = alarm_rates(shots, n_classes, 0.1, runs, wide=wide)
    error = np.sqrt(promised * (1 - promised) / runs)
    assert 0.0 < observed <= promised + 1 / (shots * n_classes) + 3 * error
    assert found > 2 * promised  # and it is good for something


def test_examples_that_saw_themselves_promise_what_is_not_kept() -> None:
    """Control: the same assertion fails where examples are not left out."""
    runs = 400
    observed, _, promised = alarm_rates(5, 10, 0.1, runs, left_out=False)
    error = np.sqrt(promised * (1 - promised) / runs)
    assert observed > promised + 1 / 50 + 10 * error


def test_bursts_keep_the_promise_only_when_they_are_told_as_groups() -> None:
    """Four near-copies of each shot vouch for one another unless they carry a group."""
    random = np.random.default_rng(5)
    observed: dict[bool, list[bool]] = {True: [], False: []}
    classes = np.repeat(np.arange(5), 20)
    shots = np.repeat(np.arange(25), 4)
    for _ in range(400):
        centres = random.normal(size=(5, 12)) * 1.2
        taken = drawn(random, centres, np.repeat(np.arange(5), 5), 0.6)[shots]
        vectors = taken + random.normal(0, 0.02, taken.shape).astype(np.float32)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        new = drawn(random, centres, random.integers(0, 5, 1), 0.6)
        new /= np.linalg.norm(new)
        for told in (True, False):
            groups = [f"shot {one}" if told else None for one in shots]
            made = ClassDistances(classes, groups, 3)
            _, scores = made.calibration(units, classes, np.arange(classes.size, dtype=np.uint64))
            score = made.to_classes(cosine_distances(new, units)).min(axis=1)
            border = make_calibration(scores, 0.2)
            observed[told].append(bool(p_values(score, scores)[0] <= border.false_alarm_rate))
    assert np.mean(observed[True]) <= 0.2 + 3 * 0.02 + 1 / 25
    assert np.mean(observed[False]) > 0.5
