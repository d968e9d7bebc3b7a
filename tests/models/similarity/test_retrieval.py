"""P@1, R-precision and MAP@R: the toy of the paper, a double loop, and copies of an image."""

import numpy as np
import pytest

from models.similarity.retrieval import figures


def ranked(hits: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """A query with R = 10 others of its class; of its ten nearest, those at the places `hits` are of it."""
    classes, angles = [0], [0.0]
    for place in range(1, 11):
        classes.append(0 if place in hits else 1)
        angles.append(0.05 * place)
    far = 10 - len(hits)
    classes += [0] * far
    angles += [2.0 + 0.01 * one for one in range(far)]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), np.array(classes)


@pytest.mark.parametrize(
    ("hits", "r_precision", "map_at_r"),
    [({1}, 10, 10), ({1, 10}, 20, 12), ({1, 2}, 20, 20), (set(range(1, 11)), 100, 100)],
)
def test_the_toy_of_the_paper(hits, r_precision, map_at_r):
    found = figures(*ranked(hits), asked=1)
    assert found.precision_at_1 == 1.0
    assert 100 * found.r_precision == pytest.approx(r_precision)
    assert 100 * found.map_at_r == pytest.approx(map_at_r)


def test_map_at_r_tells_apart_what_p_at_1_does_not():
    # Negative control of the toy: the three smaller cases share their P@1, and two their R-precision.
    found = [figures(*ranked(hits), asked=1) for hits in ({1}, {1, 10}, {1, 2})]
    assert len({one.precision_at_1 for one in found}) == 1
    assert len({round(one.r_precision, 6) for one in found}) == 2
    assert len({round(one.map_at_r, 6) for one in found}) == 3


def by_hand(vectors: np.ndarray, classes: np.ndarray) -> tuple[float, float, float]:
    rows = vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for query in range(len(rows)):
        r = int((classes == classes[query]).sum()) - 1
        if not r:
            continue
        others = sorted((one for one in range(len(rows)) if one != query), key=lambda one: -rows[one] @ rows[query])
        right = [bool(classes[one] == classes[query]) for one in others[:r]]
        precisions = [sum(right[: place + 1]) / (place + 1) for place in range(r) if right[place]]
        found.append((right[0], sum(right) / r, sum(precisions) / r))
    return tuple(np.mean(found, axis=0))


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_a_double_loop(seed):
    random = np.random.default_rng(seed)
    classes = random.integers(5, size=40)
    classes[0] = 9  # alone of its class: nothing can be said of it
    vectors = (random.normal(size=(40, 6)) + np.eye(10, 6)[classes]).astype(np.float32)
    found = figures(vectors, classes)
    assert (found.precision_at_1, found.r_precision, found.map_at_r) == pytest.approx(by_hand(vectors, classes))


def test_a_copy_of_an_image_is_another_image():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    assert figures(vectors, np.array([0, 0, 1, 1, 2, 2])).map_at_r == 1.0
    assert figures(vectors, np.array([0, 1, 1, 2, 2, 0])).map_at_r == 0.0


def test_of_too_many_images_the_first_of_each_class_count():
    random = np.random.default_rng(0)
    vectors, classes = random.normal(size=(60, 4)).astype(np.float32), np.repeat([0, 1, 2], 20)
    first = np.concatenate([np.arange(start, start + 10) for start in (0, 20, 40)])
    assert figures(vectors, classes, most=30) == figures(vectors[first], classes[first])
    assert figures(vectors, classes, most=30) != figures(vectors, classes)
