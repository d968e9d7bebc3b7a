"""ganspace: a planted factor is found and named, terms sum to the score, a latent basis moves along its direction."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from index.errors import WidthMismatch
from models.catalog import installed
from models.contract import Inputs
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.ganspace import GANSpace, GANSpaceParams, generator_directions
from models.methods.ganspace.method import BANK_MIN
from models.principal_directions import Directions, coordinates_and_residuals, principal_directions
from tests.models.methods.banks import assert_scores_hold, bank_of, inputs_of

WIDTH = 24


def planted(seed, n=300):
    """Vectors in which one factor moves all features a little, beside noise of ordinary size in each."""
    random = np.random.default_rng(seed)
    factor = random.normal(size=n)
    direction = random.normal(size=WIDTH)
    direction *= 2.5 / np.linalg.norm(direction)
    return factor, np.outer(factor, direction) + random.normal(size=(n, WIDTH))


def fitted(vectors, directions=6, **more):
    method = GANSpace(GANSpaceParams(directions=directions))
    return method, method.fit(bank_of(vectors, **more), seed=0)


# --- by hand


def test_two_features_on_paper():
    directions = Directions(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), np.array([4.0]))
    coordinates, residuals = coordinates_and_residuals(np.array([[4.0, 6.0]]), directions)
    assert coordinates.tolist() == [[6.0]]
    assert residuals.tolist() == [9.0]
    found = principal_directions(np.array([[0, 0, 0], [4, 0, 0], [0, 2, 0], [4, 2, 0]]), 3)
    assert found.mean.tolist() == [2, 1, 0]
    assert found.components == pytest.approx(np.eye(3)[:2])  # the third does not vary
    assert found.variances == pytest.approx([16 / 3, 4 / 3])


# --- oracle


@pytest.mark.parametrize("shape", [(40, 7), (9, 30)])
def test_the_score_is_a_mahalanobis_distance_in_loops(shape):
    random = np.random.default_rng(1)
    vectors = random.normal(size=shape) * np.linspace(3, 0.5, shape[1])
    _, scorer = fitted(vectors if shape[0] >= BANK_MIN else np.vstack([vectors, vectors[:1] + 1]), directions=3)
    asked = random.normal(size=(6, shape[1])).astype(np.float32)
    kept = scorer.directions
    expected = []
    for row in asked.astype(np.float64):
        left, total = row - kept.mean, 0.0
        for component, variance in zip(kept.components, kept.variances, strict=True):
            along = sum(float(a) * float(b) for a, b in zip(row - kept.mean, component, strict=True))
            left = left - along * component
            total += along**2 / variance
        expected.append(total + sum(float(x) ** 2 for x in left) / scorer.rest_variance)
    assert scorer.score(inputs_of(asked)).image == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
def test_directions_equal_a_singular_value_decomposition(shape):
    rows = np.random.default_rng(2).normal(size=shape) * np.linspace(4, 1, shape[1])
    found = principal_directions(rows, 4)
    _, sizes, vectors = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert found.variances == pytest.approx(sizes[:4] ** 2 / (shape[0] - 1))
    assert np.abs(np.sum(found.components * vectors[:4], axis=1)) == pytest.approx(1)
    assert found.components @ found.components.T == pytest.approx(np.eye(4), abs=1e-10)


# --- the mechanism


def best_of_three(coordinates, factor):
    return max(abs(spearmanr(coordinates[:, i], factor).statistic) for i in range(3))


def test_a_planted_factor_is_one_of_the_first_three_coordinates():
    found, control = [], []
    for seed in range(5):
        factor, vectors = planted(seed)
        scorer = fitted(vectors)[1]
        found.append(best_of_three(scorer.score(inputs_of(vectors)).terms["coordinates"], factor))
        random = np.linalg.qr(np.random.default_rng(seed + 50).normal(size=(WIDTH, 3)))[0]
        control.append(best_of_three(vectors @ random, factor))
    assert np.mean(found) >= 0.9
    # Negative control: three orthonormal directions that are not principal.
    assert np.mean(control) < 0.9


def test_terms_sum_to_the_score():
    _, vectors = planted(1)
    scores = fitted(vectors)[1].score(inputs_of(vectors[:50] * 2))
    total = scores.terms["directions"].sum(axis=1) + scores.terms["residual"]
    assert total == pytest.approx(scores.image, rel=1e-5)
    # Negative control: without the residual something is missing.
    assert scores.terms["directions"].sum(axis=1) != pytest.approx(scores.image, rel=1e-2)


def test_an_alarm_names_its_direction_and_shows_its_end():
    _, vectors = planted(2)
    _, scorer = fitted(vectors)
    kept = scorer.directions
    outside = np.linalg.svd(kept.components)[2][-1]
    far = 8 * np.sqrt(kept.variances)[:, None] * kept.components
    asked = inputs_of(kept.mean + np.vstack([far[0], -far[2], 12 * np.sqrt(scorer.rest_variance) * outside]))
    scores = scorer.score(asked)
    assert scores.tags["direction"] == ["1+", "3-", None]
    explained = scorer.explain(asked)
    assert "8.0 standard deviations along direction 1+" in explained.sentences[0]
    assert "no kept direction" in explained.sentences[2]
    coordinates = (vectors.astype(np.float32) - kept.mean) @ kept.components.T
    assert explained.examples["towards"][0, 0] == 100 + coordinates[:, 0].argmax()
    assert explained.examples["away"][0, 0] == 100 + coordinates[:, 0].argmin()
    assert explained.examples["towards"][1, 0] == 100 + coordinates[:, 2].argmin()
    assert explained.examples["towards"][2].tolist() == [-1, -1, -1]


def test_a_walk_changes_one_term_only():
    _, vectors = planted(3)
    _, scorer = fitted(vectors)
    walked = scorer.walk(scorer.directions.mean, 1, np.array([-3.0, 0.0, 2.0]))
    terms = scorer.score(inputs_of(walked)).terms["directions"]
    assert terms[:, 1] == pytest.approx([9, 0, 4], abs=1e-4)
    assert np.delete(terms, 1, axis=1) == pytest.approx(0, abs=1e-4)


def linear_generator(seed, latent=6, width=20):
    random = np.random.default_rng(seed)
    matrix, offset = random.normal(size=(width, latent)) * np.linspace(3, 0.3, latent), random.normal(size=width)
    return lambda latents: latents @ matrix.T + offset


def cosines(layer, found, basis):
    latents = np.random.default_rng(9).normal(size=(1, basis.shape[0]))
    moved = np.vstack([layer(latents + column) - layer(latents) for column in basis.T])
    return np.sum(moved * found.directions.components, axis=1) / np.linalg.norm(moved, axis=1)


@pytest.mark.parametrize("most", [6, 3])
def test_a_step_in_the_latent_basis_moves_a_linear_layer_along_its_direction(most):
    layer = linear_generator(4)
    found = generator_directions(layer, latent_width=6, most=most, samples=500, seed=0)
    assert cosines(layer, found, found.basis) == pytest.approx(1, abs=1e-9)
    step = layer(np.zeros((1, 6)) + found.basis[:, 0]) - layer(np.zeros((1, 6)))
    assert np.linalg.norm(step) == pytest.approx(1, rel=1e-6)
    # Negative control: principal directions of the latents themselves do not.
    random = np.linalg.qr(np.random.default_rng(0).normal(size=(6, most)))[0]
    assert cosines(layer, found, random).max() < 0.99


def test_an_edit_reaches_the_chosen_layers_only():
    random = np.random.default_rng(5)
    weights = random.normal(size=(3, 4, 6))
    found = generator_directions(linear_generator(6), latent_width=6, most=4, samples=200, seed=1)
    latents, change = random.normal(size=(2, 6)), np.array([1.5, 0, 0, -1])

    def outputs(per_layer):  # a generator that reads its latent in every layer
        return [np.tanh(weights[i] @ per_layer[i].T) for i in range(3)]

    edited = found.edited_layers(latents, change, layers=[1], n_layers=3)
    plain, after = outputs(np.repeat(latents[None], 3, axis=0)), outputs(edited)
    assert [np.array_equal(a, b) for a, b in zip(plain, after, strict=True)] == [True, False, True]
    everywhere = found.edited_layers(latents, change, layers=range(3), n_layers=3)
    assert (everywhere == found.edited(latents, change)).all()
    with pytest.raises(ParameterInvalid, match="`layers` of an edit must be from 0 to 2; got 3"):
        found.edited_layers(latents, change, layers=[3], n_layers=3)


# --- as a scorer


def test_strangers_score_higher_and_few_images_calibrate_the_residual():
    random = np.random.default_rng(7)
    bank, normal = random.normal(size=(60, 100)), random.normal(size=(200, 100))
    _, scorer = fitted(bank, directions=10)
    usual = scorer.score(inputs_of(normal))
    assert scorer.score(inputs_of(normal * 3)).image.min() > usual.image.max()
    # Sixty images in a hundred dimensions: the residual of a new image is still about 1 in each of 90.
    assert usual.terms["residual"].mean() == pytest.approx(90, rel=0.15)


def test_scores_hold_alone_in_any_order_and_after_storage():
    _, vectors = planted(8)
    method, scorer = fitted(vectors)
    assert_scores_hold(method, scorer, inputs_of(np.vstack([vectors[:20] * 3, np.full((1, WIDTH), 1e15)])))
    huge = scorer.score(inputs_of(np.full((1, WIDTH), 1e17)))
    assert np.isfinite(huge.image).all()


def test_the_order_of_the_bank_has_no_say():
    _, vectors = planted(9)
    bank = bank_of(vectors)
    whole = Inputs(np.arange(100, 400), vectors=np.concatenate([b.vectors for b in bank.bank]))
    turn = np.random.default_rng(0).permutation(300)
    turned = type(bank)(bank=[Inputs(whole.ids[turn], vectors=whole.vectors[turn])], keys=bank.keys[turn])
    method = GANSpace(GANSpaceParams())
    one, two = method.fit(bank, seed=0).export(), method.fit(turned, seed=1).export()
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in one.arrays)


def test_progress_is_reported():
    seen = []
    GANSpace(GANSpaceParams()).fit(bank_of(planted(0)[1]), seed=0, progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_each_refusal_is_named():
    method = GANSpace(GANSpaceParams())
    assert installed()["ganspace"].needs.bank_min == BANK_MIN
    with pytest.raises(BankTooSmall, match="must hold at least 10 normal images; got 9"):
        method.fit(bank_of(np.random.default_rng(0).normal(size=(9, 3))), seed=0)
    for alike in (np.zeros((20, 3)), np.full((20, 3), 0.1)):
        with pytest.raises(FitRefused, match="must hold images that differ; got 20 alike"):
            method.fit(bank_of(alike), seed=0)
    _, scorer = fitted(planted(0)[1])
    with pytest.raises(WidthMismatch):
        scorer.score(inputs_of(np.zeros((1, WIDTH + 1))))
    with pytest.raises(ParameterInvalid, match="`vectors` of the inputs"):
        scorer.score(Inputs(np.arange(1)))
    with pytest.raises(ParameterInvalid, match="`direction` of method `ganspace` must be from 0 to 5; got 6"):
        scorer.walk(np.zeros(WIDTH), 6, np.ones(1))
    with pytest.raises(ParameterInvalid, match="`directions` of method `ganspace`"):
        GANSpaceParams.parse("ganspace", {"directions": 0})
    with pytest.raises(FitRefused, match="must vary with the latent"):
        generator_directions(lambda z: np.ones((len(z), 3)), latent_width=2, most=2, samples=10, seed=0)


def test_the_fewest_images_work():
    _, scorer = fitted(np.random.default_rng(1).normal(size=(10, 4)), directions=20)
    assert np.isfinite(scorer.score(inputs_of(np.ones((2, 4)))).image).all()
    _, scorer = fitted(np.repeat(np.eye(4)[:2], 6, axis=0), directions=20)  # two images, six times each
    assert np.isfinite(scorer.score(inputs_of(np.ones((2, 4)))).image).all()
