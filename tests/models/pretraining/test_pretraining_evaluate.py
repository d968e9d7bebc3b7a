"""The figures, on vectors whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.backbones.embedder import EmbeddingSpec
from models.backbones.loader import load_embedder
from models.errors import ParameterInvalid
from models.images import ImageLimits
from models.pretraining import LabelledVectors, embedded_folder, few_shot_accuracy, one_vs_rest_auc
from models.pretraining.evaluate import neighbour_distances


def clusters(spread: float, *, seed: int, per_class: int = 20, classes: int = 5) -> LabelledVectors:
    """Classes around the axes of a space, at random lengths that must not matter."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    vectors = np.eye(classes, 16)[labels] + random.normal(0, spread, (len(labels), 16))
    vectors *= random.uniform(0.1, 10, (len(labels), 1))
    return LabelledVectors(vectors.astype(np.float32), labels, tuple("abcdefgh"[:classes]))


def test_distances_by_hand() -> None:
    bank = np.array([[1, 0], [0, 2], [-3, 0]], np.float32)
    queries = np.array([[5, 0], [0, -1]], np.float32)
    np.testing.assert_allclose(neighbour_distances(queries, bank, 1), [0, 1], atol=1e-6)
    np.testing.assert_allclose(neighbour_distances(queries, bank, 2), [0.5, 1], atol=1e-6)
    np.testing.assert_allclose(neighbour_distances(queries, bank, 3), [1, 4 / 3], atol=1e-6)


def test_one_against_the_rest_is_perfect_for_classes_apart_and_chance_for_noise() -> None:
    apart = one_vs_rest_auc(clusters(0.02, seed=0), clusters(0.02, seed=1))
    assert list(apart) == list("abcde") and min(apart.values()) == 1.0
    noise = one_vs_rest_auc(clusters(50, seed=0, per_class=200), clusters(50, seed=1, per_class=200))
    assert 0.42 < np.mean(list(noise.values())) < 0.58


def test_one_against_the_rest_equals_counting_pairs() -> None:
    bank, queries = clusters(0.4, seed=0), clusters(0.4, seed=1)
    scores = slow_scores(queries.vectors, bank.vectors[bank.labels == 2])
    strange, normal = scores[queries.labels != 2], scores[queries.labels == 2]
    pairs = (strange[:, None] > normal[None]).mean()
    assert 0.6 < pairs < 1
    assert one_vs_rest_auc(bank, queries, k=2)["c"] == pytest.approx(pairs, abs=1e-4)


def slow_scores(queries: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = []
    for query in queries.astype(np.float64):
        cosines = [query @ row / (np.linalg.norm(query) * np.linalg.norm(row)) for row in bank.astype(np.float64)]
        scores.append(np.mean(sorted(1 - cosine for cosine in cosines)[:2]))
    return np.array(scores)


def test_few_shots_suffice_for_classes_apart_and_not_for_noise() -> None:
    apart = few_shot_accuracy(clusters(0.02, seed=0), seed=0, episodes=10)
    assert apart.mean == 1.0 and apart.half_width == 0.0
    noise = few_shot_accuracy(clusters(50, seed=0), seed=0, episodes=20)
    assert 0.12 < noise.mean < 0.28 and noise.half_width > 0


def test_five_shots_are_better_than_one_and_the_seed_decides() -> None:
    images = clusters(0.35, seed=0)
    one, again, other = (few_shot_accuracy(images, seed=seed, episodes=20) for seed in (1, 1, 2))
    five = few_shot_accuracy(images, seed=1, shots=5, episodes=20)
    assert five.mean > one.mean + 0.1
    assert one == again != other
    assert few_shot_accuracy(images, seed=1, shots=5, episodes=20, c=1e-6) != five


def test_impossible_tests_are_refused() -> None:
    images = clusters(0.1, seed=0, per_class=15)
    with pytest.raises(ParameterInvalid, match="5 classes of 16 images"):
        few_shot_accuracy(images, seed=0)
    with pytest.raises(ParameterInvalid, match="from 1 to the bank's 15"):
        one_vs_rest_auc(images, images, k=16)
    with pytest.raises(ParameterInvalid, match="same names"):
        one_vs_rest_auc(images, LabelledVectors(images.vectors, images.labels, tuple("vwxyz")))
    without_one = LabelledVectors(images.vectors[:60], images.labels[:60], images.classes)
    with pytest.raises(ParameterInvalid, match="got e"):
        one_vs_rest_auc(without_one, images)


def test_a_folder_is_embedded_by_the_embedder_that_serves(colour_folder: Path, tmp_path: Path) -> None:
    embedder = load_embedder(EmbeddingSpec(weights="stand-in", image_size=32), weights_folder=tmp_path, threads=1)
    images = embedded_folder(embedder, colour_folder, limits=ImageLimits(), per_class=3)
    assert images.vectors.shape == (12, 512)
    assert images.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    path = colour_folder / "green" / "001.png"
    alone = embedder.embed([embedder.prepare(path.read_bytes(), ImageLimits())])[0]
    np.testing.assert_allclose(images.vectors[4], alone, rtol=1e-4, atol=1e-5)
    assert not np.allclose(images.vectors[3], alone, rtol=1e-4, atol=1e-5)
