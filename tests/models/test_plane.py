"""Places on a plane: what each layout promises, against distances computed one by one."""

import numpy as np
import pytest

from models.plane import Layout, plane


def clouds(per_cloud: int, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Two far groups of vectors, and which of them each belongs to."""
    random = np.random.default_rng(3)
    middles = np.zeros((2, width))
    middles[1, :4] = 6.0
    which = np.repeat([0, 1], per_cloud)
    return (middles[which] + random.normal(0, 0.5, (2 * per_cloud, width))).astype(np.float32), which


def distances(places: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(places[:, None, :].astype(np.float64) - places[None].astype(np.float64)).sum(axis=2))


def test_a_flat_cloud_keeps_its_distances_up_to_one_scale() -> None:
    random = np.random.default_rng(1)
    flat = random.normal(size=(12, 2)) * [3.0, 1.0]
    turned = np.linalg.qr(random.normal(size=(7, 7)))[0][:2]
    vectors = (flat @ turned + 5.0).astype(np.float32)
    shown, true = distances(plane(vectors, Layout.PRINCIPAL, 0)), distances(vectors)
    between = ~np.eye(12, dtype=bool)
    scale = shown[between] / true[between]
    np.testing.assert_allclose(scale, scale[0], rtol=1e-3)


@pytest.mark.parametrize("layout", Layout)
def test_places_fill_the_square_and_repeat(layout: Layout) -> None:
    vectors, _ = clouds(20)
    places = plane(vectors, layout, 0)
    assert places.shape == (40, 2) and places.dtype == np.float32
    extent = places.max(axis=0) - places.min(axis=0)
    assert extent.max() == pytest.approx(2.0, abs=1e-5) and np.abs(places).max() <= 1.0 + 1e-5
    np.testing.assert_array_equal(places, plane(vectors, layout, 0))


@pytest.mark.parametrize("layout", Layout)
def test_neighbours_stay_neighbours(layout: Layout) -> None:
    vectors, which = clouds(20)
    near = distances(plane(vectors, layout, 0)) + np.diag(np.full(40, np.inf))
    assert (which[near.argmin(axis=1)] == which).all()


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_few_or_equal_vectors_have_places_too(layout: Layout, count: int) -> None:
    vectors, _ = clouds(3)
    assert np.isfinite(plane(vectors[:count], layout, 0)).all()
    equal = np.repeat(vectors[:1], count, axis=0)
    np.testing.assert_array_equal(plane(equal, layout, 0), np.zeros((count, 2)))
