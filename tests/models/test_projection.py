"""A projection: what it computes, its fingerprint, its storage."""

import numpy as np
import pytest

from index.errors import NotFinite, WidthMismatch
from models.errors import StateDamaged
from models.projection import Head, Projection


def head(seed: int, *, width: int = 3, hidden: int = 0) -> Head:
    random = np.random.default_rng(seed)

    def array(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    trunk = (array(hidden, 5), array(hidden), array(5, hidden)) if hidden else None
    return Head(array(width, 5), array(width), trunk)


def rows(n: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def by_hand(one: Head, row: np.ndarray) -> np.ndarray:
    x = row.astype(np.float64) / np.linalg.norm(row.astype(np.float64))
    if one.trunk is not None:
        into, shift, back = one.trunk
        x = x + back @ np.maximum(into @ x + shift, 0)
    z = one.weight @ x + one.bias
    return z / np.linalg.norm(z)


def test_it_is_heads_side_by_side_at_unit_length():
    heads = [head(1), head(2, width=4, hidden=6)]
    found = Projection(heads).apply(rows(7))
    assert found.shape == (7, 7) and found.dtype == np.float32
    for row, got in zip(rows(7), found, strict=True):
        wanted = np.concatenate([by_hand(one, row) for one in heads]) / np.sqrt(2)
        assert got == pytest.approx(wanted, abs=1e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_mates_and_length_change_nothing():
    projection = Projection([head(1), head(2, hidden=6)])
    together = projection.apply(rows(50))
    alone = np.concatenate([projection.apply(row[None]) for row in rows(50)])
    assert np.abs(together - alone).max() <= 1.2e-7
    assert projection.apply(8 * rows(3)) == pytest.approx(projection.apply(rows(3)), abs=1e-6)
    assert projection.apply(np.zeros((0, 5), np.float32)).shape == (0, 6)


def test_slopes_are_pulled_back_as_finite_differences_say():
    projection = Projection([head(1), head(2, width=4, hidden=6)])
    random = np.random.default_rng(3)
    slopes, ways = random.normal(size=(6, 7)), random.normal(size=(6, 5)).astype(np.float32)
    step = 1e-2  # what is left of it is rounded to float32
    ahead, behind = (projection.apply(rows(6) + sign * step * ways).astype(np.float64) for sign in (1, -1))
    differences = ((ahead - behind) * slopes).sum(axis=1) / (2 * step)
    found = (projection.pulled_back(rows(6), slopes) * ways).sum(axis=1)
    assert found == pytest.approx(differences, rel=2e-2, abs=2e-3)


def test_the_fingerprint_is_of_base_and_matrices():
    one, same, other = Projection([head(1)]), Projection([head(1)]), Projection([head(2)])
    assert one.fingerprint("a" * 64) == same.fingerprint("a" * 64)
    assert len({one.fingerprint("a" * 64), one.fingerprint("b" * 64), other.fingerprint("a" * 64), "a" * 64}) == 4


def test_it_comes_back_from_storage():
    before = Projection([head(1), head(2, hidden=6)])
    after = Projection.of_arrays({name: array.copy() for name, array in before.arrays().items()})
    assert after.sha256() == before.sha256()
    assert np.array_equal(after.apply(rows(4)), before.apply(rows(4)))
    assert (after.width, after.width_in) == (6, 5)
    assert after.memory_bytes == 4 * (2 * (15 + 3) + 2 * 30 + 6)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: {},
        lambda arrays: {name: array for name, array in arrays.items() if name != "0.bias"},
        lambda arrays: {**arrays, "0.bias": arrays["0.bias"][:-1]},
        lambda arrays: {**arrays, "1.back": arrays["1.back"].T},
        lambda arrays: {**arrays, "0.weight": arrays["0.weight"] * np.nan},
    ],
)
def test_damaged_matrices_are_refused(damage):
    arrays = Projection([head(1), head(2, hidden=6)]).arrays()
    with pytest.raises(StateDamaged):
        Projection.of_arrays(damage(arrays))


def test_wrong_rows_are_refused():
    projection = Projection([head(1)])
    with pytest.raises(WidthMismatch):
        projection.apply(np.zeros((1, 4), np.float32))
    with pytest.raises(NotFinite):
        projection.apply(np.full((1, 5), np.nan, np.float32))
