"""Which slice of the vector learns which classes."""

import numpy as np

from models.pretraining.division import Division

LABELS = np.repeat(np.arange(6), (40, 40, 40, 10, 10, 10))
LOW, HIGH = [1.0, 0.0], [0.0, 1.0]


def division() -> Division:
    return Division(LABELS, classes=6, learners=2, width=7, seed=1)


def prototypes(*kinds: list[float]) -> np.ndarray:
    lengths = np.linspace(1, 9, len(kinds))[:, None]  # directions count, not lengths
    return (lengths * np.array(kinds)).astype(np.float32)


def test_classes_that_point_the_same_way_have_one_learner() -> None:
    one = division()
    one.renew(prototypes(LOW, LOW, LOW, HIGH, HIGH, HIGH))
    assert one.learner_of is not None
    first, last = one.learner_of[0], one.learner_of[5]
    assert one.learner_of.tolist() == [first] * 3 + [last] * 3 and {first, last} == {0, 1}
    # A class that turns goes over to the others, who keep their learner.
    one.renew(prototypes(LOW, LOW, HIGH, HIGH, HIGH, HIGH))
    assert one.learner_of.tolist() == [first] * 2 + [last] * 4


def test_a_lesson_is_of_one_learner() -> None:
    one = division()
    one.renew(prototypes(LOW, LOW, LOW, HIGH, HIGH, HIGH))
    assert one.learner_of is not None
    counted = {0: 0, 1: 0}
    for step in range(200):
        lesson = one.lesson(step, 32)
        (learner,) = set(one.learner_of[LABELS[lesson.rows]].tolist())
        assert lesson.classes.tolist() == np.flatnonzero(one.learner_of == learner).tolist()
        assert lesson.columns == (slice(0, 4), slice(4, 7))[learner]
        counted[learner] += 1
        # Twice only where there are fewer images than places.
        assert len(set(lesson.rows.tolist())) == 32 if learner == one.learner_of[0] else len(lesson.rows) == 32
    assert 0.7 < counted[int(one.learner_of[0])] / 200 < 0.9  # of 150 images 120 are its


def test_seed_and_step_decide() -> None:
    one, same = division(), division()
    for each in (one, same):
        each.renew(prototypes(LOW, LOW, LOW, HIGH, HIGH, HIGH))
    assert one.lesson(3, 8).rows.tolist() == same.lesson(3, 8).rows.tolist() != one.lesson(4, 8).rows.tolist()


def test_a_division_is_taken_up() -> None:
    one, other = division(), division()
    other.restore(one.state())
    assert other.learner_of is None
    one.renew(prototypes(LOW, HIGH, LOW, HIGH, HIGH, HIGH))
    other.restore(one.state())
    assert one.learner_of is not None and other.learner_of is not None
    assert one.learner_of.tolist() == other.learner_of.tolist()
