"""The classifier: what it learns, and that it forgets."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from index.errors import IdTaken, NotFinite, WidthMismatch
from models.errors import BankTooSmall, NothingToCompare, ParameterInvalid
from models.methods.few_shot_lr import METHOD, FewShotLRParams, FittedClasses, LiveFewShotLR, regression
from models.methods.few_shot_lr.regression import RegressionProblem, softmax
from models.methods.few_shot_lr.temperature import fitted_sharpness

WIDTH = 24
LABELS = ("bolt", "nut", "washer", "zip")


def drawn(seed: int, counts: Sequence[int], width: int = WIDTH, spread: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative vectors of any length around a centre for each class, and their class numbers, ascending."""
    random = np.random.default_rng(seed)
    centres = np.abs(random.normal(size=(len(counts), width))) + 0.5
    classes = np.repeat(np.arange(len(counts)), counts)
    vectors = np.abs(centres[classes] + random.normal(0, spread, (classes.size, width)))
    return (vectors * random.uniform(0.5, 3.0, (classes.size, 1))).astype(np.float32), classes


def live(vectors: np.ndarray, labels: Sequence[str], order: Sequence[int] | None = None, **params: float) -> METHOD:
    """A classifier that was given these examples, one call for each, in this order."""
    made = LiveFewShotLR(width=vectors.shape[1], params=FewShotLRParams(**params))
    for place in range(len(labels)) if order is None else order:
        one = slice(place, place + 1)
        made.add(np.arange(place, place + 1), key(np.arange(place, place + 1)), labels[one], vectors[one])
    return made


def key(ids: np.ndarray) -> np.ndarray:
    """Keys in another order than the ids."""
    return (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


@pytest.fixture(scope="module")
def four() -> tuple[np.ndarray, list[str], np.ndarray]:
    """Examples of four classes with their labels, and images to ask about."""
    vectors, classes = drawn(1, (9, 8, 8, 7))
    chosen = np.concatenate([np.flatnonzero(classes == number)[:6] for number in range(4)])
    asked = np.setdiff1d(np.arange(classes.size), chosen)
    return vectors[chosen], [LABELS[number] for number in classes[chosen]], vectors[asked]


def units(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def same_up_to_a_constant(a: np.ndarray, b: np.ndarray, within: float) -> None:
    np.testing.assert_allclose(a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True), atol=within, rtol=0)


# --- the regression ---


@pytest.mark.parametrize("counts", [(4, 4, 4, 4), (1, 1, 1), (40, 1, 7), (12, 30, 25, 30, 9)])
@pytest.mark.parametrize("c", [0.01, 1.0, 300.0])
def test_the_regression_is_scikit_learns(counts: tuple[int, ...], c: float) -> None:
    vectors, classes = drawn(2, counts)
    rows, asked = units(vectors), units(drawn(3, (20,))[0])
    theirs = LogisticRegression(C=c, tol=1e-9, max_iter=10_000).fit(rows.astype(np.float64), classes)
    ours = RegressionProblem(rows, classes, len(counts), c).solve()
    same_up_to_a_constant(
        np.array([ours.logits(one) for one in asked]), theirs.decision_function(asked.astype(np.float64)), 2e-4
    )
    other = RegressionProblem(rows, classes, len(counts), 10 * c).solve()
    assert np.abs(other.weights - ours.weights).max() > 1e-3  # the comparison above can fail


def test_two_classes_have_a_row_of_weights_each() -> None:
    # scikit-learn has one row for both: opposite rows at half its length, so half its penalty.
    vectors, classes = drawn(4, (9, 5))
    rows, asked = units(vectors), units(drawn(5, (20,))[0])
    theirs = LogisticRegression(C=2.0, tol=1e-9, max_iter=10_000).fit(rows.astype(np.float64), classes)
    ours = RegressionProblem(rows, classes, 2, 1.0).solve()
    found = np.array([ours.logits(one) for one in asked])
    np.testing.assert_allclose(found[:, 1] - found[:, 0], theirs.decision_function(asked.astype(np.float64)), atol=2e-4)


def test_a_part_of_the_rows_is_fitted_as_if_there_were_no_others() -> None:
    vectors, classes = drawn(6, (5, 6, 7, 3))
    rows, asked = units(vectors), units(drawn(7, (20,))[0])
    used = np.arange(classes.size) % 3 != 0
    # Together they weigh as much as all of them would.
    weight = used.size / used.sum()
    theirs = LogisticRegression(C=weight, tol=1e-9, max_iter=10_000).fit(rows[used].astype(np.float64), classes[used])
    ours = RegressionProblem(rows, classes, 4, 1.0).solve(used)
    expected = theirs.decision_function(asked.astype(np.float64))
    same_up_to_a_constant(np.array([ours.logits(one) for one in asked]), expected, 2e-4)
    whole = RegressionProblem(rows, classes, 4, 1.0).solve()
    assert np.abs(whole.weights - ours.weights).max() > 1e-2


def test_a_class_without_rows_has_no_chance() -> None:
    vectors, classes = drawn(8, (4, 4, 4))
    found = RegressionProblem(units(vectors), classes, 3, 1.0).solve(classes != 1)
    chances = softmax(found.logits(units(vectors)[0]))
    assert chances[1] == 0.0 and chances[0] + chances[2] == pytest.approx(1.0)


def test_many_examples_in_float32_are_as_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, classes = drawn(9, [12] * 40, width=64)
    rows = units(vectors)
    exact = RegressionProblem(rows, classes, 40, 1.0).solve()
    monkeypatch.setattr(regression, "DOUBLE_WORK", 0)
    quick = RegressionProblem(rows, classes, 40, 1.0).solve()
    assert (exact.weights != quick.weights).any()
    asked = rows[:50]
    ours, theirs = (np.array([one.logits(row) for row in asked]) for one in (quick, exact))
    assert np.ptp(theirs, axis=1).min() > 0.1
    same_up_to_a_constant(ours, theirs, 1e-3)


def test_examples_that_are_all_alike_give_the_shares_of_the_classes() -> None:
    rows = np.ones((8, 5), np.float32)
    classes = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    found = RegressionProblem(rows, classes, 2, 1.0).solve()
    np.testing.assert_allclose(softmax(found.logits(rows[0])), [0.25, 0.75], atol=1e-6)


# --- what the paper's idea consists of ---


def test_the_length_of_vectors_changes_nothing(four: tuple) -> None:
    vectors, labels, asked = four
    plain, longer = (live(scale * vectors, labels).fitted() for scale in (1, 7))
    for scale in (1, 7):
        there, here = plain.classify(asked), longer.classify(scale * asked)
        np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-4)
        np.testing.assert_allclose(there.score, here.score, atol=1e-6)
    # Control: without the paper's normalisation the same assertion fails.
    raw, longer = (live(scale * vectors, labels, normalize=False).fitted() for scale in (1, 7))
    there, here = raw.classify(asked).probabilities, longer.classify(7 * asked).probabilities
    assert np.abs(there - here).max() > 0.01


def test_a_class_added_and_removed_was_never_there(four: tuple) -> None:
    vectors, labels, asked = four
    strangers, _ = drawn(50, (5,))
    changed = live(vectors, labels)
    before = changed.fitted().classify(asked)
    changed.add(np.arange(900, 905), key(np.arange(900, 905)), ["new"] * 5, strangers)
    between = changed.fitted().classify(asked)
    assert between.probabilities.shape[1] == 5
    assert np.abs(between.probabilities[:, [0, 1, 3, 4]] - before.probabilities).max() > 1e-3  # there it was felt
    assert changed.remove_class("new") == 5
    after = changed.fitted()
    never = live(vectors, labels).fitted()
    for one in (after.classify(asked), never.classify(asked)):
        np.testing.assert_array_equal(one.probabilities, before.probabilities)
        np.testing.assert_array_equal(one.score, before.score)
    assert after.sharpness == never.sharpness
    np.testing.assert_array_equal(after.calibration_scores, never.calibration_scores)


def test_an_example_added_and_removed_was_never_there(four: tuple) -> None:
    vectors, labels, asked = four
    changed = live(vectors, labels)
    before = changed.fitted().classify(asked).probabilities
    changed.add(np.array([900]), key(np.array([900])), ["nut"], asked[:1])
    assert np.abs(changed.fitted().classify(asked).probabilities - before).max() > 1e-4
    assert changed.remove(np.array([900, 12345])) == 1
    np.testing.assert_array_equal(changed.fitted().classify(asked).probabilities, before)


def test_the_order_in_which_examples_came_changes_no_bit(four: tuple) -> None:
    vectors, labels, asked = four
    order = np.random.default_rng(0).permutation(len(labels)).tolist()
    straight, mixed = (live(vectors, labels, one).fitted() for one in (None, order))
    np.testing.assert_array_equal(straight.classify(asked).probabilities, mixed.classify(asked).probabilities)
    assert straight.labels == mixed.labels == LABELS
    assert straight.counts() == dict.fromkeys(LABELS, 6)


def test_it_recognises_the_classes(four: tuple) -> None:
    vectors, labels, _ = four
    fresh, classes = drawn(1, (9, 8, 8, 7))
    held_back = ~(fresh[:, None] == vectors[None]).all(axis=2).any(axis=1)
    found = live(vectors, labels).fitted().classify(fresh[held_back]).probabilities.argmax(axis=1)
    assert (found == classes[held_back]).mean() > 0.8
    shuffled = np.random.default_rng(3).permutation(labels).tolist()
    wrong = live(vectors, shuffled).fitted().classify(fresh[held_back]).probabilities.argmax(axis=1)
    assert (wrong == classes[held_back]).mean() < 0.7


# --- answers ---


def test_an_answer_does_not_depend_on_what_else_is_asked(four: tuple) -> None:
    vectors, labels, asked = four
    fitted = live(vectors, labels).fitted()
    together = fitted.classify(asked)
    for place in range(len(asked)):
        alone = fitted.classify(asked[place : place + 1])
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
        assert alone.score[0] == together.score[place]


def test_probabilities_add_up_and_the_nearest_examples_come_first(four: tuple) -> None:
    vectors, labels, asked = four
    found = live(vectors, labels).fitted().classify(asked, nearest=40)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
    cosines = units(asked).astype(np.float64) @ units(vectors).astype(np.float64).T
    for row, near in enumerate(1.0 - cosines):
        order = np.argsort(near)
        assert found.nearest.ids[row, :24].tolist() == order.tolist()
        np.testing.assert_allclose(found.nearest.distances[row, :24], near[order], atol=1e-6)
    assert (found.nearest.ids[:, 24:] == -1).all() and np.isinf(found.nearest.distances[:, 24:]).all()


def test_one_class_alone_is_certain_and_distance_does_the_work(four: tuple) -> None:
    vectors, _, asked = four
    fitted = live(vectors[:6], ["bolt"] * 6).fitted()
    found = fitted.classify(asked)
    assert (found.probabilities == 1.0).all()
    assert fitted.calibration_scores.size == 6
    assert found.score[:3].max() < found.score[3:].min()  # the first three are bolts


def test_one_image_of_each_class_classifies_but_calibrates_nothing(four: tuple) -> None:
    vectors, _, asked = four
    fitted = live(vectors[::6], LABELS).fitted()
    assert fitted.calibration_scores.size == 0 and fitted.sharpness_rows == 0 and fitted.sharpness == 1.0
    assert fitted.single() == list(LABELS)
    np.testing.assert_allclose(fitted.classify(asked).probabilities.sum(axis=1), 1.0)


def test_an_example_asked_about_is_left_out_of_its_own_judgement(four: tuple) -> None:
    vectors, labels, _ = four
    fitted = live(vectors, labels).fitted()
    itself = fitted.classify(vectors[:4], exclude=np.arange(4))
    seen = fitted.classify(vectors[:4])
    assert (seen.nearest.ids[:, 0] == np.arange(4)).all() and (itself.nearest.ids[:, 0] != np.arange(4)).all()
    assert (seen.score < itself.score).all()
    assert seen.probabilities[:, 0].mean() > itself.probabilities[:, 0].mean()  # the fit had seen them
    # The probabilities are those of a fit without it.
    honest = RegressionProblem(units(vectors), np.sort([LABELS.index(one) for one in labels]), 4, 1.0)
    rows = np.arange(len(labels))
    fold = fitted._folds[fitted._place_of[0]]
    ids_of_fold = fitted.examples.ids[fitted._folds == fold]
    assert 0 in ids_of_fold and len(ids_of_fold) < len(labels) / 3
    expected = softmax(fitted.sharpness * honest.solve(~np.isin(rows, ids_of_fold)).logits(units(vectors)[0]))
    np.testing.assert_allclose(itself.probabilities[0], expected, atol=1e-5)


def test_a_class_of_one_image_does_not_know_that_image_itself(four: tuple) -> None:
    vectors, labels, _ = four
    fitted = live(vectors[:7], labels[:7]).fitted()
    assert fitted.single() == ["nut"]
    found = fitted.classify(vectors[6:7], exclude=np.array([6]))
    assert found.probabilities[0].tolist() == [1.0, 0.0]
    alone = live(vectors[:1], labels[:1]).fitted()
    with pytest.raises(NothingToCompare):
        alone.classify(vectors[:1], exclude=np.array([0]))
    assert alone.classify(vectors[:1], exclude=np.array([77])).probabilities.tolist() == [[1.0]]


def test_images_of_one_group_are_held_out_together() -> None:
    vectors, classes = drawn(11, (8, 8))
    groups = [None if place % 2 else f"g{place // 4}" for place in range(16)]
    made = LiveFewShotLR(width=WIDTH, params=FewShotLRParams())
    made.add(np.arange(16), key(np.arange(16)), [LABELS[number] for number in classes], vectors, groups)
    fitted = made.fitted()
    names = np.array([name or f"alone {place}" for place, name in enumerate(fitted.examples.groups)])
    for name in set(names):
        assert len(set(fitted._folds[names == name])) == 1
    for fold in range(fitted._folds.max() + 1):
        assert set(fitted._classes[fitted._folds != fold]) == {0, 1}  # something of each class is left


# --- how sure ---


def test_sharpness_is_where_held_out_examples_are_likeliest() -> None:
    random = np.random.default_rng(12)
    classes = random.integers(0, 5, 400)
    logits = random.normal(0, 0.05, (400, 5))
    logits[np.arange(400), classes] += 0.08
    found = fitted_sharpness(logits, classes)

    def surprise(sharpness: float) -> float:
        targets = np.full((400, 5), 1 / 402 / 4)
        targets[np.arange(400), classes] = 1 - 1 / 402
        return float(-(targets * np.log(softmax(sharpness * logits))).sum())

    assert surprise(found) <= min(surprise(found * step) for step in (0.9, 0.99, 1.01, 1.1))
    assert found > 10  # far from what it was
    confident = softmax(found * logits).max(axis=1).mean()
    assert confident == pytest.approx((logits.argmax(axis=1) == classes).mean(), abs=0.05)


def test_a_few_right_answers_do_not_make_certain() -> None:
    logits = np.array([[0.2, 0.0], [0.0, 0.2]] * 3)
    sure = softmax(fitted_sharpness(logits, np.array([0, 1] * 3)) * logits).max()
    assert sure == pytest.approx(1 - 1 / 8, abs=1e-3)  # 6 of 6 right: as after 7 of 8
    assert fitted_sharpness(np.empty((0, 3)), np.empty(0, np.int64)) == 1.0


def test_probabilities_are_about_as_sure_as_they_are_right() -> None:
    gaps, raw = [], []
    for seed in range(6):
        vectors, classes = drawn(100 + seed, [45] * 8, spread=1.1)
        shot = np.arange(classes.size) % 45 < 5
        fitted = live(vectors[shot], [f"c{number}" for number in classes[shot]]).fitted()
        assert fitted.sharpness_rows == 40
        found = fitted.classify(vectors[~shot], nearest=0).probabilities
        is_right = found.argmax(axis=1) == classes[~shot]
        gaps.append(found.max(axis=1).mean() - is_right.mean())
        timid = found ** (1 / fitted.sharpness)
        raw.append((timid / timid.sum(axis=1, keepdims=True)).max(axis=1).mean() - is_right.mean())
    assert abs(np.mean(gaps)) < 0.05
    assert np.mean(raw) < -0.3  # control: the logits as they come out of the fit


def test_a_large_set_is_judged_on_some_parts_of_it() -> None:
    vectors, classes = drawn(13, [1300, 1200], width=4)
    made = LiveFewShotLR(width=4, params=FewShotLRParams())
    made.add(np.arange(2500), key(np.arange(2500)), [f"c{number}" for number in classes], vectors)
    fitted = made.fitted()
    assert 1000 <= fitted.sharpness_rows <= 1100
    assert fitted.calibration_scores.size == 2000
    assert fitted.held_out()[0].shape == (fitted.sharpness_rows, 2)


# --- what is refused ---


def test_what_cannot_be_is_refused_and_changes_nothing(four: tuple) -> None:
    vectors, labels, asked = four
    made = live(vectors, labels)
    before = made.fitted()
    one = key(np.array([77]))
    for error, ids, given, more in [
        (WidthMismatch, [77], vectors[:1, :5], {}),
        (NotFinite, [77], np.full((1, WIDTH), np.nan, np.float32), {}),
        (IdTaken, [3], vectors[:1], {}),
        (ParameterInvalid, [77], vectors[:1], {"groups": ["a", "b"]}),
    ]:
        with pytest.raises(error):
            made.add(np.array(ids), one, ["nut"], given, **more)
    with pytest.raises(ParameterInvalid):
        made.add(np.array([77]), one, ["nut", "bolt"], vectors[:1])
    assert len(made) == 24 and made.fitted() is before
    with pytest.raises(ParameterInvalid):
        before.classify(asked, nearest=-1)
    with pytest.raises(WidthMismatch):
        before.classify(asked[:, :3])
    with pytest.raises(BankTooSmall):
        LiveFewShotLR(width=WIDTH, params=FewShotLRParams()).fitted()
    with pytest.raises(ParameterInvalid):
        FewShotLRParams.parse("few_shot_lr", {"c": 0})


def test_the_fit_is_kept_until_the_examples_change(four: tuple) -> None:
    vectors, labels, _ = four
    made = live(vectors, labels)
    first = made.fitted()
    assert made.fitted() is first
    assert made.remove(np.array([12345])) == 0 and made.fitted() is first
    assert made.remove_class("nothing") == 0 and made.fitted() is first
    made.remove(np.array([0]))
    assert isinstance(made.fitted(), FittedClasses) and made.fitted() is not first
