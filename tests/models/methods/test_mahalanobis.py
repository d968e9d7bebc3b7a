"""The Gaussian baseline: by hand, against an oracle, what makes it more than a distance to the mean, and failures."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from models.contract import Inputs, Reference
from models.errors import BankTooSmall, ParameterInvalid
from models.methods.mahalanobis import METHOD
from models.methods.mahalanobis.maths import distances, gaussian
from tests.oracles.mahalanobis import distance


def inputs(vectors) -> Inputs:
    rows = np.asarray(vectors, np.float32)
    return Inputs(ids=np.arange(len(rows)), vectors=rows)


def fitted(vectors, **params):
    rows = inputs(vectors)
    keys = np.arange(len(rows), dtype=np.uint64)
    return METHOD(METHOD.Params(**params)).fit(Reference(bank=[rows], keys=keys), seed=0)


def test_by_hand():
    # Mean (0, 0); variance 2 along the first axis and 1/2 along the second: 2 is sqrt 2 deviations, 1 is sqrt 2 too.
    scorer = fitted([[2, 0], [-2, 0], [0, 1], [0, -1]], shrinkage=0.0)
    found = scorer.score(inputs([[0, 0], [2, 0], [0, 1], [4, 0]])).image
    assert found == pytest.approx([0, 2**0.5, 2**0.5, 8**0.5], abs=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0, None])
def test_it_is_the_formula(shrinkage):
    random = np.random.default_rng(3)
    rows = (random.normal(size=(30, 5)) @ random.normal(size=(5, 5))).astype(np.float32)
    queries = random.normal(size=(4, 5)).astype(np.float32)
    model = gaussian(rows, shrinkage)
    expected = [distance(x, rows, model.shrinkage) for x in queries]
    assert distances(queries, model) == pytest.approx(expected, rel=1e-6)
    if shrinkage is None:
        assert model.shrinkage == pytest.approx(LedoitWolf().fit(rows.astype(np.float64)).shrinkage_, rel=1e-9)


def test_mixing_the_features_changes_nothing_but_for_a_plain_distance_it_does():
    random = np.random.default_rng(5)
    rows, queries = random.normal(size=(200, 4)), random.normal(size=(20, 4)) * 3
    mixed = random.normal(size=(4, 4)) + 2 * np.eye(4)

    def both(shrinkage):
        return [
            distances(np.float32(x), gaussian(np.float32(bank), shrinkage))
            for bank, x in ((rows, queries), (rows @ mixed, queries @ mixed))
        ]

    plain, after = both(0.0)
    assert after == pytest.approx(plain, rel=1e-3)
    # Negative control: with all spread shrunk away it is a scaled Euclidean distance, and the mixing shows.
    plain, after = both(1.0)
    assert np.abs(after / plain - 1).max() > 0.1


def test_it_finds_what_breaks_a_correlation_and_a_plain_distance_does_not():
    gained, lost = [], []
    for seed in range(5):
        random = np.random.default_rng(seed)
        along = random.normal(size=(300, 1))
        rows = np.hstack([along, along]) + 0.05 * random.normal(size=(300, 2))
        normal = np.hstack([[[1.5], [-1.5]]] * 2)  # far out, but on the line
        strange = np.array([[0.5, -0.5], [-0.5, 0.5]])  # near the mean, but off the line
        for shrinkage, margins in ((None, gained), (1.0, lost)):
            model = gaussian(np.float32(rows), shrinkage)
            margins.append(distances(np.float32(strange), model).min() / distances(np.float32(normal), model).max())
    assert np.mean(gained) > 2.0
    assert np.mean(lost) < 1.0  # negative control: without the covariance the order is the other way round


def test_fewer_images_than_features_and_images_all_alike():
    random = np.random.default_rng(1)
    few = fitted(random.normal(size=(3, 20)), shrinkage=0.0)
    assert np.isfinite(few.score(inputs(random.normal(size=(5, 20)))).image).all()
    alike = fitted(np.ones((4, 3)))
    assert alike.score(inputs([[1, 1, 1], [1, 1, 2]])).image == pytest.approx([0.0, 1.0], rel=1e-4)


def test_what_is_restored_scores_the_same():
    random = np.random.default_rng(2)
    scorer = fitted(random.normal(size=(40, 6)))
    queries = inputs(random.normal(size=(8, 6)))
    again = METHOD(METHOD.Params()).restore(scorer.export())
    assert np.array_equal(scorer.score(queries).image, again.score(queries).image)


def test_failures_are_named():
    with pytest.raises(BankTooSmall, match="at least 2 images to fit; got 1"):
        fitted([[1.0, 2.0]])
    with pytest.raises(ParameterInvalid, match="`shrinkage` of method `mahalanobis` must be less than or equal to 1"):
        METHOD.Params.parse("mahalanobis", {"shrinkage": 1.5})
