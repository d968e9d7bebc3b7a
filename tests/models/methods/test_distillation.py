"""distillation: soft targets carry what hard labels do not, at high temperature they are logits, specialists agree."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.datasets import load_digits

from models.contract import Inputs, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.distillation import (
    Distillation,
    DistillationParams,
    combined,
    confusable_groups,
    cosine_logits,
    distillation_loss,
    divergence,
    soft_targets,
    with_dustbin,
)
from models.methods.distillation.method import _spread
from models.training import TrainingPlan, mlp, seeded, train
from tests.contract.method_world import BACKBONE, batches, picture
from tests.models.methods.banks import through_json

NEVER_SHOWN = 3
T = 8.0
NEEDS = frozenset(("maps", "pixels"))
QUICK = {"prototypes": 8, "side": 32, "channels": 8, "steps": 40}


# --- by hand


def test_targets_soften_with_the_temperature():
    logits = torch.tensor([0.0, np.log(4.0), 0.0], dtype=torch.float64)
    assert soft_targets(logits, 1.0).tolist() == pytest.approx([1 / 6, 4 / 6, 1 / 6])
    assert soft_targets(logits, 2.0).tolist() == pytest.approx([1 / 4, 2 / 4, 1 / 4])


def test_the_loss_is_both_terms_in_their_proportion():
    student = torch.tensor([[0.0, np.log(3.0)]], dtype=torch.float64)
    teacher = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    soft = -0.5 * np.log(1 / 4) - 0.5 * np.log(3 / 4)
    hard = -np.log(1 / 4)
    found = distillation_loss(student, teacher, 1.0, 0.1, torch.tensor([0]))
    assert float(found) == pytest.approx(0.9 * soft + 0.1 * hard)


def test_the_dustbin_holds_what_is_outside():
    told = with_dustbin(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), [1, 3])
    assert told[0].tolist() == pytest.approx([0.2, 0.4, 0.4])


# --- the mechanism


def gradient(logits, teacher, temperature):
    student = torch.tensor(logits, requires_grad=True)
    p = torch.softmax(torch.tensor(teacher) / temperature, dim=-1)
    loss = -(p * torch.log_softmax(student / temperature, dim=-1)).sum()
    return torch.autograd.grad(loss, student)[0].numpy()


def test_at_a_high_temperature_distillation_matches_logits():
    random = np.random.default_rng(0)
    z, v = random.normal(size=10), random.normal(size=10)
    z, v = z - z.mean(), v - v.mean()
    apart = np.abs(z - v).max()
    assert np.abs(10 * 100.0**2 * gradient(z, v, 100.0) - (z - v)).max() < 0.01 * apart
    # Negative controls: at a low temperature, and with logits whose means are not zero, it does not.
    assert np.abs(10 * 1.0**2 * gradient(z, v, 1.0) - (z - v)).max() > 0.1 * apart
    assert np.abs(10 * 100.0**2 * gradient(z + 5.0, v, 100.0) - (z + 5.0 - v)).max() > 0.1 * apart


@cache
def digits():
    found = load_digits()
    rows = torch.tensor(found.data / 16.0, dtype=torch.float32)
    kinds = torch.tensor(found.target)
    is_test = torch.arange(len(rows)) % 4 == 0
    return rows[~is_test], kinds[~is_test], rows[is_test], kinds[is_test]


def taught(seed, loss_of, rows):
    generator = seeded(seed)
    net = mlp([64, 32, 10], generator)
    plan = TrainingPlan(epochs=12, batch=128, learning_rate=0.02)
    train(net, lambda chosen: loss_of(net, chosen), rows=len(rows), plan=plan, generator=generator, method="test")
    return net.requires_grad_(False)


def share_after_raising(net):
    """Of the digit that was never shown, after its bias was raised to where most digits are right."""
    _, _, rows, kinds = digits()
    logits = net(rows)
    best, share = -1.0, 0.0
    for raised in np.linspace(0, 30, 61):
        lifted = logits.clone()
        lifted[:, NEVER_SHOWN] += raised
        said = lifted.argmax(dim=1)
        right = float((said == kinds).float().mean())
        if right > best:
            best, share = right, float((said[kinds == NEVER_SHOWN] == NEVER_SHOWN).float().mean())
    return share


def test_a_student_knows_a_digit_that_it_was_never_shown():
    rows, kinds, _, _ = digits()
    shown = rows[kinds != NEVER_SHOWN]
    known = kinds[kinds != NEVER_SHOWN]
    by_soft, by_hard = [], []
    for seed in range(5):
        teacher = taught(
            seed, lambda net, chosen: torch.nn.functional.cross_entropy(net(rows[chosen]), kinds[chosen]), rows
        )
        targets = soft_targets(teacher(shown), T)
        for weight, shares in ((0.0, by_soft), (1.0, by_hard)):
            student = taught(
                10 + seed,
                lambda net, chosen, weight=weight, targets=targets: distillation_loss(
                    net(shown[chosen]), targets[chosen], T, weight, known[chosen]
                ),
                shown,
            )
            shares.append(share_after_raising(student))
    assert np.mean(by_soft) > 0.5
    # Negative control: hard labels tell nothing of a digit that is not there.
    assert np.mean(by_hard) < 0.3


def joined_by_descent(general, special, groups):
    """The minimiser, by a general optimiser on logits."""

    def total(z):
        q = softmax(z)
        value = float((general * np.log(general / q)).sum())
        for told, group in zip(special, groups, strict=True):
            there = np.append(q[group], 1 - q[group].sum())
            value += float((told * np.log(told / there)).sum())
        return value

    return softmax(minimize(total, np.log(general), method="BFGS", options={"gtol": 1e-8}).x), total


def test_specialists_are_joined_at_the_least_divergence():
    random = np.random.default_rng(1)
    groups = [[0, 2, 3], [1, 4]]
    general = random.dirichlet(np.ones(6))
    special = [random.dirichlet(np.ones(4)), random.dirichlet(np.ones(3))]
    expected, total = joined_by_descent(general, special, groups)
    found = combined(torch.tensor(general), [torch.tensor(one) for one in special], groups).numpy()
    assert found == pytest.approx(expected, abs=1e-4)
    assert found.sum() == pytest.approx(1.0)
    # Negative control: the generalist alone, or the plain average over the classes, is not the minimum.
    assert total(np.log(general)) > total(np.log(found)) + 1e-3
    assert combined(torch.tensor(general), [], []).tolist() == general.tolist()


def test_classes_that_are_predicted_together_get_one_specialist():
    random = np.random.default_rng(2)
    which = random.integers(0, 3, 600)
    logits = random.normal(0, 1, (600, 9))
    logits[np.arange(600)[:, None], 3 * which[:, None] + np.arange(3)] += 6  # three kinds, three classes each
    shuffled = np.argsort([0, 3, 6, 1, 4, 7, 2, 5, 8])
    groups = confusable_groups(softmax(logits, axis=1)[:, shuffled], 3, seed=0)
    place = {int(one): number for number, one in enumerate(shuffled)}
    wanted = sorted(sorted(place[3 * kind + one] for one in range(3)) for kind in range(3))
    assert groups == wanted


# --- the fitted scorer


def fitted(seed=1, bank=40, **params):
    pictures = [picture(number) for number in range(bank)]
    reference = Reference(bank=batches(pictures, 0, NEEDS), keys=np.arange(bank, dtype=np.uint64) * 2**40)
    return Distillation(DistillationParams(**{**QUICK, **params})).fit(reference, seed=seed)


def asked(pictures):
    pixels = np.stack(pictures)
    return Inputs(
        ids=np.arange(len(pixels)), pixels=pixels, maps=BACKBONE.maps(pixels, (1, 2, 3, 4)), backbone=BACKBONE
    )


def test_the_student_agrees_on_normal_images_after_it_was_taught():
    unseen = asked([picture(5000 + number) for number in range(8)])
    strange = asked([picture(6000 + number, defect=True) for number in range(8)])
    scorer, untaught = fitted(), fitted(steps=1, learning_rate=1e-9)
    assert scorer.score(unseen).image.mean() < 0.7 * untaught.score(unseen).image.mean()
    assert scorer.score(strange).image.min() > scorer.score(unseen).image.mean()


def test_the_map_is_the_divergence_and_the_score_its_hottest_cells():
    scorer = fitted(hottest_share=0.25)
    one = asked([picture(5000, defect=True)])
    found = scorer.score(one)
    teacher = torch.log_softmax(
        cosine_logits(torch.from_numpy(one.maps[3]), scorer.prototypes, scorer.params.sharpness) / 4.0, dim=-1
    )
    student = torch.log_softmax(scorer.student(torch.from_numpy(one.pixels))[0] / 4.0, dim=-1)
    expected = divergence(teacher, student).numpy()
    assert found.pixels == pytest.approx(expected, abs=1e-5)
    hottest = np.sort(expected.ravel())[-4:]
    assert found.image[0] == pytest.approx(hottest.mean(), rel=1e-5)


def test_specialists_are_part_of_the_scorer():
    scorer = fitted(specialists=3)
    assert scorer.groups and len(scorer.student.special) == len(scorer.groups)
    images = asked([picture(7000), picture(7001, defect=True)])
    again = Distillation(scorer.params).restore(through_json(scorer.export()))
    assert np.array_equal(again.score(images).pixels, scorer.score(images).pixels)
    assert np.array_equal(again.embed(images), scorer.embed(images))
    assert scorer.embed(images).shape == (2, 16)
    assert scorer.score(images).image[1] > scorer.score(images).image[0]


def test_batches_are_spread_over_the_bank():
    assert _spread([64] * 10, 64 * 20) == [(place, 64) for place in range(10)]
    assert _spread([64] * 10, 128) == [(0, 64), (9, 64)]
    assert _spread([64, 64, 64, 10], 100) == [(0, 64), (3, 10)]
    assert _spread([12], 8) == [(0, 8)]
    assert _spread([], 8) == []


def test_each_way_to_fail():
    method = Distillation(DistillationParams(**QUICK))
    few = Reference(bank=batches([picture(0)] * 3, 0, NEEDS), keys=np.arange(3, dtype=np.uint64))
    with pytest.raises(BankTooSmall):
        method.fit(few, seed=0)
    flat = np.zeros((3, 32, 32), np.float32)
    alike = Reference(bank=batches([flat] * 12, 0, NEEDS), keys=np.arange(12, dtype=np.uint64))
    with pytest.raises(FitRefused, match="differ"):
        method.fit(alike, seed=0)
    blind = Reference(bank=[Inputs(ids=np.arange(12))], keys=np.arange(12, dtype=np.uint64))
    with pytest.raises(ParameterInvalid, match="pixels"):
        method.fit(blind, seed=0)
