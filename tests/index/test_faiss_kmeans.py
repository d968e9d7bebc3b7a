"""Centres of clusters whose middle is known."""

import numpy as np
import pytest

from index import CountOutOfRange, NotFinite, WidthMismatch, kmeans


def clusters(seed):
    random = np.random.default_rng(seed)
    middles = np.array([[0, 0], [100, 0], [0, 100]], dtype=np.float64)
    vectors = np.repeat(middles, 50, axis=0) + random.uniform(-1, 1, (150, 2))
    return vectors[random.permutation(150)].astype(np.float32)


def test_separate_clusters_are_found_and_their_means_returned():
    vectors = clusters(0)
    centres, assignment = kmeans(vectors, 3, seed=4)
    assert centres.dtype == np.float32
    assert assignment.dtype == np.int64
    assert np.bincount(assignment).tolist() == [50, 50, 50]
    for number, centre in enumerate(centres):
        np.testing.assert_allclose(centre, vectors[assignment == number].mean(axis=0), atol=1e-4)
    distances = np.linalg.norm(vectors[:, None] - centres[None], axis=2)
    assert (assignment == distances.argmin(axis=1)).all()


def test_the_seed_decides():
    vectors = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    kept = vectors.copy()
    one, other, again = (kmeans(vectors, 9, seed=seed, iterations=3)[0] for seed in (7, 2**40, 7))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.array_equal(vectors, kept)


@pytest.mark.parametrize("k", [4, 9])
def test_as_many_centres_as_vectors_are_the_vectors(k):
    vectors = clusters(2)[:4]
    centres, assignment = kmeans(vectors, k, seed=0)
    assert np.array_equal(centres, vectors)
    assert not np.shares_memory(centres, vectors)
    assert assignment.tolist() == [0, 1, 2, 3]


def test_spare_centres_stay_beside_equal_vectors():
    centres, assignment = kmeans(np.ones((30, 4)), 3, seed=0)
    np.testing.assert_allclose(centres, 1, atol=4e-3)
    assert len(set(assignment.tolist())) == 1
    assert kmeans(np.empty((0, 4)), 3, seed=0)[0].shape == (0, 4)


def test_a_vector_between_two_centres_goes_to_the_lower_number():
    vectors = np.array([[0.0], [0.0], [4.0], [4.0], [2.0]])
    for seed in range(8):
        centres, assignment = kmeans(vectors, 2, seed=seed, iterations=1)
        far = np.abs(vectors - centres.T)
        assert (assignment == far.argmin(axis=1)).all()  # argmin takes the first of equals


@pytest.mark.parametrize(
    ("error", "vectors", "options"),
    [
        (CountOutOfRange, np.ones((3, 2)), {"k": 0}),
        (CountOutOfRange, np.ones((3, 2)), {"k": 2, "iterations": 0}),
        (WidthMismatch, np.ones(3), {"k": 2}),
        (NotFinite, np.full((3, 2), np.nan), {"k": 2}),
    ],
)
def test_what_cannot_be_clustered_is_refused(error, vectors, options):
    with pytest.raises(error):
        kmeans(vectors, seed=0, **options)
