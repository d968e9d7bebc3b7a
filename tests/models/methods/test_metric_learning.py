"""metric_learning: chosen on classes apart, measured on classes that nobody looked at, better where labels tell."""

import numpy as np
import pytest
import torch

from models.contract import EmbeddingGiver, Inputs, ProjectionGiver, Reference
from models.errors import FitRefused, NothingToCompare, ParameterInvalid
from models.methods.metric_learning import MetricLearning, MetricLearningParams
from models.similarity.labelled import classes_apart, labelled_images
from models.similarity.losses import Loss, Miner, batch_loss, drawn_settings
from models.training import seeded
from tests.models.methods.banks import assert_scores_hold, inputs_of
from tests.models.similarity.worlds import changed, collection

QUICK = {"loss": "contrastive", "trials": 2, "seeds": 1, "epochs": 4, "width": 4, "folds": 2}


def method(**more) -> MetricLearning:
    return MetricLearning(MetricLearningParams(**{**QUICK, **more}))


@pytest.fixture(scope="module")
def learnt():
    reference = collection(0, bank=20)
    return reference, method().fit(reference, seed=1)


# --- the protocol


def parts_of(reference):
    names = labelled_images(reference, method="m").names
    apart = classes_apart(len(names), test_share=0.5, folds=2)
    return [names[one] for one in apart.test], [names[one] for one in apart.development]


def test_test_classes_are_never_looked_at(learnt):
    reference, scorer = learnt
    test, development = parts_of(reference)
    again = method().fit(changed(reference, test[0]), seed=1)
    assert again.learnt.sha256() == scorer.learnt.sha256()
    assert again.report().details["settings"] == scorer.report().details["settings"]
    assert again.report().after != scorer.report().after
    # Negative control: a class that is learnt from or validates changes what is learnt.
    assert method().fit(changed(reference, development[0]), seed=1).learnt.sha256() != scorer.learnt.sha256()


def test_what_is_told_is_what_the_embedding_does(learnt):
    reference, scorer = learnt
    images = labelled_images(reference, method="m")
    test = images.of(classes_apart(len(images.names), test_share=0.5, folds=2).test)
    vectors = scorer.embed(inputs_of(test.vectors)).astype(np.float64)
    near = vectors @ vectors.T
    np.fill_diagonal(near, -np.inf)
    right = test.classes[near.argmax(axis=1)] == test.classes
    assert scorer.report().after["precision_at_1"] == pytest.approx(right.mean())
    assert scorer.report().details["test_images"] == len(test.classes)


def test_on_five_collections_it_is_better_and_with_shuffled_labels_it_is_not():
    one = method(trials=1, epochs=10, width=12)
    gains, controls = [], []
    for seed in range(5):
        reference = collection(seed)
        told = one.fit(reference, seed=seed).report()
        gains.append(told.after["map_at_r"] - told.before["map_at_r"])
        everything = np.concatenate([inputs.vectors for (inputs,) in reference.labels.values()])
        order = np.random.default_rng(seed).permutation(len(everything)).reshape(len(reference.labels), -1)
        shuffled = {
            name: [Inputs(ids=inputs.ids, vectors=everything[rows])]
            for (name, (inputs,)), rows in zip(reference.labels.items(), order, strict=True)
        }
        told = one.fit(Reference(bank=(), keys=reference.keys, labels=shuffled), seed=seed).report()
        controls.append(told.after["map_at_r"] - told.before["map_at_r"])
    assert np.mean(gains) > 0.1
    # Negative control: labels that say nothing teach nothing.
    assert np.mean(controls) < 0.05


def test_every_loss_gets_the_same_trials_and_the_best_on_the_folds_is_taken():
    told = method(loss="best", trials=1, epochs=2).fit(collection(1), seed=0).report().details
    assert set(told["validation"]) == {"contrastive", "triplet", "multi_similarity"}
    best = max(told["validation"], key=lambda one: told["validation"][one]["map_at_r"])
    assert told["loss"] == best and told["settings"] == told["validation"][best]["settings"]


def test_separated_concatenated_and_the_interval():
    scorer = method(trials=1, seeds=3, folds=3, epochs=2).fit(collection(2), seed=0)
    told = scorer.report()
    assert scorer.findings()["after"] == told.after
    assert scorer.learnt.width == 3 * 4  # the heads of all folds stand side by side
    interval = told.details["map_at_r_over_seeds"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert told.better == (min(told.after["map_at_r"], interval["low"]) > told.before["map_at_r"])
    assert set(told.details["separated"]) == set(told.after) == {"precision_at_1", "r_precision", "map_at_r"}


def test_too_few_classes_give_an_embedding_without_figures():
    told = method().fit(collection(0, classes=3), seed=0).report()
    assert (told.before, told.after, told.better) == ({}, {}, None)


# --- losses and miners


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("miner", Miner)
def test_every_loss_and_miner_pulls_a_class_together(loss, miner):
    generator = seeded(0)
    usual = drawn_settings(loss, 0, generator)
    value_of = batch_loss(loss, miner, usual)
    classes = torch.arange(4).repeat_interleave(3)
    together = torch.eye(4)[classes]
    mixed = torch.eye(4)[torch.arange(12) % 4] + 0.01 * torch.randn(12, 4, generator=generator)
    assert float(value_of(together, classes)) <= float(value_of(mixed, classes))
    drawn = drawn_settings(loss, 1, seeded(1))
    assert drawn == drawn_settings(loss, 1, seeded(1)) != usual
    assert set(drawn) == set(usual) and 1e-4 <= drawn["learning_rate"] <= 1e-2


def test_contrastive_loss_by_hand():
    value = batch_loss(Loss.CONTRASTIVE, Miner.NONE, {"pos_margin": 0.0, "neg_margin": 1.0, "learning_rate": 1e-3})
    # Distances: within the class sqrt(2); between classes 0 (violates the margin by 1) and sqrt(2) (does not).
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert float(value(rows, torch.tensor([0, 0, 1]))) == pytest.approx(2**0.5 + 1.0, abs=1e-4)


# --- the scorer


def test_the_score_is_the_distance_to_the_bank_in_the_new_embedding(learnt):
    reference, scorer = learnt
    asked = inputs_of(reference.labels["k3"][0].vectors)
    bank = scorer.embed(reference.bank[0]).astype(np.float64)
    wanted = np.sort(1 - scorer.embed(asked).astype(np.float64) @ bank.T, axis=1)[:, :2].mean(axis=1)
    assert scorer.score(asked).image == pytest.approx(wanted, abs=1e-6)
    assert_scores_hold(method(), scorer, asked)
    assert isinstance(scorer, EmbeddingGiver) and isinstance(scorer, ProjectionGiver)


def test_each_way_to_fail():
    with pytest.raises(FitRefused):
        method().fit(collection(0, classes=1), seed=0)
    with pytest.raises(NothingToCompare):
        method(trials=1, epochs=1).fit(collection(0, classes=2), seed=0).score(inputs_of(np.ones((1, 12))))
    with pytest.raises(ParameterInvalid):
        MetricLearningParams.parse("metric_learning", {"loss": "cosface"})
