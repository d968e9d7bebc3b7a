"""divide_and_conquer: one learner is the plain job, a learner moves its slice alone, renamed clusters keep theirs."""

import numpy as np
import pytest
import torch

from index.distances import unit_rows
from models.errors import ParameterInvalid
from models.learners import matched
from models.methods.divide_and_conquer import DivideAndConquer, DivideAndConquerParams, Learners
from models.similarity.labelled import labelled_images
from models.similarity.losses import Loss, Miner
from models.similarity.network import HeadNetwork
from models.similarity.protocol import learn
from models.similarity.training import Recipe, train_head
from models.training import seeded
from tests.models.methods.banks import assert_scores_hold, inputs_of
from tests.models.similarity.worlds import collection

QUICK = {"learners": 2, "every": 1, "trials": 1, "seeds": 1, "epochs": 3, "width": 4, "folds": 2, "hidden": 6}
SETTINGS = {"margin": 0.2, "learning_rate": 1e-3}


def method(**more) -> DivideAndConquer:
    return DivideAndConquer(DivideAndConquerParams(**{**QUICK, **more}))


def test_one_learner_is_the_plain_job_bit_for_bit():
    images = labelled_images(collection(0), method="m")
    one, two = method(learners=1), method(learners=2)
    plain = learn(images, one.plan(), seed=3)
    divided = learn(images, one.plan(), seed=3, make_division=one.division)
    assert divided.projection.sha256() == plain.projection.sha256()
    assert divided.report == plain.report
    # Negative control: two learners give another embedding.
    assert (
        learn(images, two.plan(), seed=3, make_division=two.division).projection.sha256() != plain.projection.sha256()
    )


class Always:
    """The same learner at every turn."""

    def __init__(self, columns: slice) -> None:
        self._columns = columns

    def renew(self, epoch, embeddings) -> None:
        pass

    def turn(self, epoch):
        return None, self._columns


@pytest.mark.parametrize(("columns", "still"), [(slice(0, 2), [2, 3]), (slice(2, 4), [0, 1]), (slice(None), [])])
def test_a_learner_moves_its_slice_and_the_trunk_and_nothing_else(columns, still):
    # The last case is the negative control: the whole embedding moves.
    images = labelled_images(collection(0), method="m")
    recipe = Recipe(Loss.TRIPLET, Miner.NONE, SETTINGS, width=4, hidden=6, epochs=1, method="m")
    before = HeadNetwork(images.vectors, 4, 6, seeded(5)).head()
    after = train_head(images, None, recipe, seed=5, division=Always(columns)).projection.heads[0]
    moved = (after.weight != before.weight).any(axis=1)
    assert np.flatnonzero(~moved).tolist() == still
    assert (after.bias[still] == before.bias[still]).all()
    assert (after.trunk[2] != before.trunk[2]).any()


def test_gradients_of_other_slices_are_exactly_zero():
    images = labelled_images(collection(1), method="m")
    network = HeadNetwork(images.vectors, 6, 4, seeded(0))
    rows = torch.from_numpy(unit_rows(images.vectors))
    network(rows)[:, 2:4].square().sum().backward()
    weights = network.map.weight.grad
    assert weights is not None and network.back is not None and network.back.weight.grad is not None
    assert (weights[[0, 1, 4, 5]] == 0).all() and (weights[2:4] != 0).any()
    assert (network.back.weight.grad != 0).any()


def test_renamed_clusters_keep_their_learners():
    random = np.random.default_rng(0)
    clusters = random.integers(5, size=200)
    before = [np.flatnonzero(clusters == one) for one in range(5)]
    for _ in range(10):
        renamed = [before[one] for one in random.permutation(5)]
        assert all(map(np.array_equal, matched(before, renamed), before))
    # Negative control: without matching a learner gets the images of another.
    turned = before[1:] + before[:1]
    assert not any(map(np.array_equal, turned, before))


def test_a_cluster_that_changed_a_little_keeps_its_learner():
    before = [np.arange(0, 10), np.arange(10, 30), np.arange(30, 40)]
    found = [np.arange(28, 40), np.arange(0, 12), np.arange(12, 28)]
    assert [one[0] for one in matched(before, found)] == [0, 12, 28]


def test_learners_divide_every_few_epochs_and_join_at_the_end():
    random = np.random.default_rng(0)
    rows = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0) + 0.01 * random.normal(size=(40, 4)).astype(np.float32)
    learners = Learners(4, 10, every=2, divided=4, seed=0)
    assert [(one.start, one.stop) for one in learners.slices] == [(0, 2), (2, 5), (5, 8), (8, 10)]
    learners.renew(0, rows)
    first = [one.tolist() for one in learners.members]
    assert sorted(map(tuple, first)) == [tuple(range(start, start + 10)) for start in range(0, 40, 10)]
    learners.renew(1, rows[::-1])  # not its epoch
    assert [one.tolist() for one in learners.members] == first
    drawn = {learners.turn(3)[1].start for _ in range(100)}
    assert drawn == {0, 2, 5, 8}
    for _ in range(20):
        members, columns = learners.turn(2)
        assert members.tolist() == first[learners.slices.index(columns)]
    assert learners.turn(4) == (None, slice(None))


def test_the_plain_training_is_told_beside_it():
    reference = collection(0, bank=12)
    one = method()
    scorer = one.fit(reference, seed=3)
    plain = learn(labelled_images(reference, method="m"), one.plan(), seed=3)
    assert scorer.report().details["plain"]["after"] == dict(plain.report.after)
    assert scorer.report().after != dict(plain.report.after)
    assert_scores_hold(one, scorer, inputs_of(reference.labels["k1"][0].vectors))


def test_learners_need_room():
    with pytest.raises(ParameterInvalid, match="two dimensions"):
        DivideAndConquerParams.parse("divide_and_conquer", {"learners": 8, "width": 8})
