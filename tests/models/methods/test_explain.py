"""Maps of toy scores whose explanation is known, and examples against brute force."""

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from index import Metric, make_index
from models.errors import LibraryMissing, ParameterInvalid
from models.methods.explain import Cells, Explain, ExplainParams, MapKind, blurred, mean_colour, nearest_of_classes
from models.methods.explain.examples import FIRST_LOOK

SIDE = 12


def explain(**params: object) -> Explain:
    return Explain(width=8, params=ExplainParams.parse("explain", params))


def pair_of_images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, baseline = np.random.default_rng(seed).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    return image, baseline


def is_present(pixels: np.ndarray, cells: Cells, image: np.ndarray) -> np.ndarray:
    """Which cells an image shows as they are."""
    same = (pixels == image).all(axis=1).reshape(len(pixels), -1)
    return np.stack([same[:, (cells.numbers == one).ravel()].all(axis=1) for one in range(len(cells))], axis=1)


def game(image: np.ndarray, grid: int, worth: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A score that is the worth of the set of cells that are shown."""
    cells = Cells(image, image, grid)
    return lambda pixels: worth(is_present(pixels, cells, image).astype(np.float64))


def shapley(worth: Callable[[np.ndarray], np.ndarray], players: int) -> np.ndarray:
    """By definition: the mean gain over all orders in which players may come."""
    total = np.zeros(players)
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        there = np.zeros((1, players))
        before = float(worth(there)[0])
        for one in order:
            there[0, one] = 1
            after = float(worth(there)[0])
            total[one] += after - before
            before = after
    return total / len(orders)


# --- maps ---


def test_covered_cells_show_the_baseline_and_sums_are_of_their_pixels() -> None:
    image, baseline = pair_of_images(1)
    cells = Cells(image, baseline, 5)  # cells of 2 and 3 pixels
    assert np.unique(cells.numbers).tolist() == list(range(25))
    present = np.random.default_rng(2).random((3, 25)) < 0.5
    shown = cells.covered(present)
    for row in range(3):
        is_shown = present[row][cells.numbers]
        assert np.array_equal(shown[row][:, is_shown], image[:, is_shown])
        assert np.array_equal(shown[row][:, ~is_shown], baseline[:, ~is_shown])
    sums = cells.sums(image[0])
    assert sums[1, 2] == pytest.approx(image[0][cells.numbers == 7].sum(dtype=np.float64))
    assert sums.sum() == pytest.approx(image[0].sum(dtype=np.float64))


def test_occlusion_of_an_additive_score_is_each_cells_share() -> None:
    image, baseline = pair_of_images(3)
    weights = np.random.default_rng(4).normal(size=image.shape)

    def score(pixels: np.ndarray) -> np.ndarray:
        return (weights * pixels).sum(axis=(1, 2, 3))

    cells = Cells(image, baseline, 4)
    shares = cells.sums((weights * (image - baseline)).sum(axis=0))
    found = explain(grid=4, window=1).map(MapKind.OCCLUSION, score, image, baseline)
    assert np.allclose(found.values, shares, atol=1e-5) and found.evaluations == 18
    assert found.value - found.baseline_value == pytest.approx(shares.sum())
    # A window of two cells: the mean of the sums of the windows that hold the cell. The corner is in one window only.
    wide = explain(grid=4, window=2).map(MapKind.OCCLUSION, score, image, baseline)
    assert wide.values[0, 0] == pytest.approx(shares[:2, :2].sum()) and wide.evaluations == 11
    # Negative control: another image's map is not this one's.
    other = explain(grid=4, window=1).map(MapKind.OCCLUSION, score, *pair_of_images(5))
    assert not np.allclose(other.values, shares, atol=1e-1)


def test_gradients_along_the_path_add_up_and_one_at_the_image_does_not() -> None:
    image, baseline = pair_of_images(6)

    def score(pixels: np.ndarray) -> np.ndarray:
        return (pixels.astype(np.float64) ** 2).sum(axis=(1, 2, 3))

    def gradient(pixels: np.ndarray) -> np.ndarray:
        return 2.0 * pixels

    found = explain(grid=3, steps=20).map(MapKind.GRADIENT, score, image, baseline, gradient)
    assert found.values.sum() == pytest.approx(found.value - found.baseline_value, rel=1e-5)
    by_hand = Cells(image, baseline, 3).sums((image.astype(np.float64) ** 2 - baseline.astype(np.float64) ** 2).sum(0))
    assert np.allclose(found.values, by_hand, atol=1e-4)

    def only_at_the_image(pixels: np.ndarray) -> np.ndarray:
        return np.broadcast_to(2.0 * image, pixels.shape)

    control = explain(grid=3, steps=20).map(MapKind.GRADIENT, score, image, baseline, only_at_the_image)
    assert abs(control.values.sum() - (found.value - found.baseline_value)) > 10.0
    with pytest.raises(ParameterInvalid, match="gradient"):
        explain().map(MapKind.GRADIENT, score, image, baseline)


def pairwise(players: int, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """A game of cells and of pairs of cells, and its Shapley values: a pair's worth is halved."""
    random = np.random.default_rng(seed)
    own, together = random.normal(size=players), np.triu(random.normal(size=(players, players)), 1)

    def worth(present: np.ndarray) -> np.ndarray:
        return 5.0 + present @ own + np.einsum("ni,ij,nj->n", present, together, present)

    return worth, own + (together + together.T).sum(axis=1) / 2


def test_shapley_values_of_pairs_are_exact_from_one_pair_of_permutations() -> None:
    image, baseline = pair_of_images(7)
    worth, expected = pairwise(9, 8)
    found = explain(grid=3, evaluations=19).map(MapKind.SHAP, game(image, 3, worth), image, baseline)
    assert found.evaluations == 19 and found.value == pytest.approx(worth(np.ones((1, 9)))[0])
    assert found.baseline_value == pytest.approx(5.0)
    assert np.allclose(found.values.ravel(), expected, atol=1e-5)
    # Negative control: a single order, without its reverse, gives each pair's worth to who came last.
    order = np.tril(np.ones((10, 9)), -1)
    one_order = np.diff(worth(order))
    assert not np.allclose(one_order, expected, atol=0.1)


def test_shapley_values_approach_their_definition_and_always_add_up() -> None:
    image, baseline = pair_of_images(9)

    def worth(present: np.ndarray) -> np.ndarray:  # cells 0 and 1 alike, cell 3 worth nothing
        return 3.0 * present[:, 0] * present[:, 1] * present[:, 2] + np.maximum(present[:, 0], present[:, 1])

    score, expected = game(image, 2, worth), shapley(worth, 4)
    for evaluations in (16, 40, 200):
        found = explain(grid=2, evaluations=evaluations).map(MapKind.SHAP, score, image, baseline)
        assert found.values.sum() == pytest.approx(found.value - found.baseline_value, abs=1e-5)
    found = explain(grid=2, evaluations=4000).map(MapKind.SHAP, score, image, baseline)
    assert np.allclose(found.values.ravel(), expected, atol=0.08)
    assert found.values[1, 1] == 0.0 and expected[0] == pytest.approx(expected[1])
    # Negative control: LIME's slopes of the same game do not add up to it.
    lime = explain(grid=2, evaluations=400).map(MapKind.LIME, score, image, baseline)
    assert abs(lime.values.sum() - (lime.value - lime.baseline_value)) > 0.3


def test_lime_finds_the_weights_of_an_additive_game() -> None:
    image, baseline = pair_of_images(10)
    weights = np.random.default_rng(11).normal(size=16)

    def worth(present: np.ndarray) -> np.ndarray:
        return present @ weights

    found = explain(grid=4, evaluations=2000).map(MapKind.LIME, game(image, 4, worth), image, baseline)
    assert found.value == pytest.approx(weights.sum(), abs=1e-5) and found.baseline_value == 0.0
    assert np.corrcoef(found.values.ravel(), weights)[0, 1] > 0.99
    # Negative control: not those of another order of cells.
    assert abs(np.corrcoef(found.values.ravel(), np.roll(weights, 5))[0, 1]) < 0.7


@pytest.mark.parametrize("kind", [MapKind.LIME, MapKind.SHAP])
def test_a_seed_decides_and_torch_is_left_as_it_was(kind: MapKind) -> None:
    image, baseline = pair_of_images(12)

    def worth(present: np.ndarray) -> np.ndarray:
        return present[:, 0] * present[:, 1] * present[:, 2]

    def made(seed: int) -> np.ndarray:
        return explain(grid=3, evaluations=60, seed=seed).map(kind, game(image, 3, worth), image, baseline).values

    before = torch.get_rng_state()
    first = made(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert np.array_equal(made(1), first) and not np.array_equal(made(2), first)


def test_without_captum_the_extra_is_named_and_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    image, baseline = pair_of_images(13)

    def score(pixels: np.ndarray) -> np.ndarray:
        return pixels.sum(axis=(1, 2, 3))

    monkeypatch.delitem(sys.modules, "models.methods.explain.sampling", raising=False)
    monkeypatch.delattr(sys.modules["models.methods.explain"], "sampling", raising=False)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    for kind in (MapKind.LIME, MapKind.SHAP):
        with pytest.raises(LibraryMissing, match=r"oddity\[explain\]"):
            explain(grid=2).map(kind, score, image, baseline)
    assert explain(grid=2).map(MapKind.OCCLUSION, score, image, baseline).values.shape == (2, 2)


def test_what_cannot_be_mapped_is_refused() -> None:
    image, baseline = pair_of_images(14)

    def score(pixels: np.ndarray) -> np.ndarray:
        return pixels.sum(axis=(1, 2, 3))

    with pytest.raises(ParameterInvalid, match="must be at most the image's side, 12; got 13"):
        explain(grid=13).map(MapKind.OCCLUSION, score, image, baseline)
    with pytest.raises(ParameterInvalid, match="must be at least 201 for Shapley values of 100 cells; got 200"):
        explain(grid=10, evaluations=200).map(MapKind.SHAP, score, image, baseline)


def test_baselines_keep_the_colours_and_lose_the_details() -> None:
    image, _ = pair_of_images(15)
    assert np.allclose(blurred(image).mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=0.1)
    assert blurred(image).std() < 0.4 * image.std()
    assert np.allclose(mean_colour(image).mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=1e-6)
    assert np.ptp(mean_colour(image), axis=(1, 2)).max() == 0.0


# --- examples ---


def test_examples_are_the_brute_force_neighbours_of_each_class() -> None:
    random = np.random.default_rng(16)
    vectors = random.normal(size=(300, 8)).astype(np.float32)
    # The nearest class holds more examples than the first look sees.
    vectors[:150] = vectors[0] + 0.05 * vectors[:150]
    labels = np.array(["near"] * 150 + ["b", "c", "d"] * 50)
    ids = random.permutation(1000)[:300]
    index = make_index("flat", width=8, metric=Metric.COSINE)
    index.add(ids, vectors)
    classes = {label: np.sort(ids[labels == label]) for label in np.unique(labels)} | {"empty": ids[:0]}
    query = vectors[0] + 0.01 * random.normal(size=8).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - unit @ (query / np.linalg.norm(query))
    assert (labels[np.argsort(distances)[:FIRST_LOOK]] == "near").all()
    asked: list[int] = []

    def search(rows: np.ndarray, k: int, allowed: np.ndarray):
        asked.append(k)
        return index.search(rows, k, allowed=allowed)

    found = nearest_of_classes(search, query, classes, each=5, most=3)
    order = sorted({"near", "b", "c", "d"}, key=lambda label: distances[labels == label].min())[:3]
    assert [one.label for one in found] == order and order[0] == "near" and asked[1] > FIRST_LOOK
    for one in found:
        own = np.flatnonzero(labels == one.label)
        nearest = own[np.argsort(distances[own])[:5]]
        assert one.ids.tolist() == ids[nearest].tolist()
        assert np.allclose(one.distances, distances[nearest], atol=1e-5)
    assert nearest_of_classes(search, query, classes, each=0, most=3) == []
    assert nearest_of_classes(search, query, {}, each=5, most=3) == []
