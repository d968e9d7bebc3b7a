"""principal_directions.py: by hand, against a singular value decomposition, with weights."""

import numpy as np
import pytest

from models.principal_directions import Directions, coordinates_and_residuals, principal_directions


def test_on_paper():
    directions = Directions(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), np.array([4.0]))
    coordinates, residuals = coordinates_and_residuals(np.array([[4.0, 6.0]]), directions)
    assert coordinates.tolist() == [[6.0]]
    assert residuals.tolist() == [9.0]
    found = principal_directions(np.array([[0, 0, 0], [4, 0, 0], [0, 2, 0], [4, 2, 0]]), 3)
    assert found.mean.tolist() == [2, 1, 0]
    assert found.components == pytest.approx(np.eye(3)[:2])  # the third does not vary
    assert found.variances == pytest.approx([16 / 3, 4 / 3])


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
def test_directions_equal_a_singular_value_decomposition(shape):
    rows = np.random.default_rng(2).normal(size=shape) * np.linspace(4, 1, shape[1])
    found = principal_directions(rows, 4)
    _, sizes, vectors = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert found.variances == pytest.approx(sizes[:4] ** 2 / (shape[0] - 1))
    assert np.abs(np.sum(found.components * vectors[:4], axis=1)) == pytest.approx(1)
    assert found.components @ found.components.T == pytest.approx(np.eye(4), abs=1e-10)


@pytest.mark.parametrize("shape", [(60, 8), (16, 60)])
def test_a_weight_of_nothing_leaves_a_row_out(shape):
    rows = np.random.default_rng(3).normal(size=shape) * np.linspace(4, 1, shape[1])
    weights = np.where(np.arange(shape[0]) % 3 == 0, 0.0, 1.0)
    without, weighed = principal_directions(rows[weights > 0], 4), principal_directions(rows, 4, weights)
    assert weighed.mean == pytest.approx(without.mean)
    assert weighed.variances == pytest.approx(without.variances)
    assert weighed.components == pytest.approx(without.components, abs=1e-9)
    assert principal_directions(rows, 4).variances != pytest.approx(without.variances, rel=1e-3)  # negative control


@pytest.mark.parametrize("alike", [np.zeros((20, 3)), np.full((20, 30), 0.1)])
def test_rows_that_are_all_equal_have_no_direction(alike):
    assert principal_directions(alike, 2).variances.size == 0
