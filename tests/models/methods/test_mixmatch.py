"""mixmatch: guesses are averaged, sharpened and detached, mixing keeps a row mostly itself, and the pool helps."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from models.contract import Inputs, Need, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid
from models.methods.mixmatch import MixMatch, MixMatchParams
from models.methods.mixmatch.augment import Changes, versions
from models.methods.mixmatch.maths import cross_entropy, guessed_labels, squared_error
from models.methods.mixmatch.network import Head, Material, Recipe, train_head
from models.mixing import mixed, mixing_shares, sharpened
from models.training import TrainingPlan, seeded
from tests.contract.method_world import BACKBONE, SIDE, batches, picture

QUICK = MixMatchParams(versions=3, epochs=4, hidden=16)
NEEDS = frozenset((Need.VECTORS, Need.PIXELS))
SEEDS = range(5)


# --- by hand


def test_sharpening_by_hand() -> None:
    shares = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    squares = np.array([0.36, 0.09, 0.01])
    assert np.allclose(sharpened(shares, 0.5)[0], squares / squares.sum())
    assert torch.allclose(sharpened(shares, 1.0), shares)  # nothing is sharpened
    assert sharpened(shares, 0.01)[0, 0] > 0.999999  # nearly the arg-max
    assert sharpened(torch.tensor([[1.0, 0.0]]), 0.5).tolist() == [[1.0, 0.0]]


def test_a_row_keeps_at_least_half_of_itself() -> None:
    shares = mixing_shares(2000, 0.75, np.random.default_rng(1))
    assert shares.shape == (2000,) and shares.min() >= 0.5 and shares.max() <= 1.0
    # Negative control: without the larger part being taken, about half of the draws lie below.
    plain = np.random.default_rng(1).beta(0.75, 0.75, 2000)
    assert (plain < 0.5).mean() > 0.4
    assert np.allclose(np.sort(shares), np.sort(np.maximum(plain, 1 - plain)).astype(np.float32))
    # Small alpha mixes hardly, large alpha half and half, 0 not at all.
    means = [mixing_shares(2000, alpha, np.random.default_rng(2)).mean() for alpha in (0.0, 0.05, 0.75, 10.0)]
    assert means[0] == 1.0 and means == sorted(means, reverse=True)


def test_mixing_and_losses_by_hand() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    assert torch.allclose(mixed(first, second, torch.tensor([0.5, 0.75])), torch.tensor([[0.5, 1.0], [0.25, 3.0]]))
    logits, targets = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.25, 0.75]])
    assert float(cross_entropy(logits, targets)) == pytest.approx(np.log(2))
    assert float(squared_error(logits, targets)) == pytest.approx(0.0625)


def test_guesses_are_means_over_versions_and_no_gradient_flows_through_them() -> None:
    head = Head(3, 8, 4, seeded(1))
    stack = torch.randn((5, 6, 3), generator=seeded(2))
    with torch.no_grad():
        by_hand = torch.stack([torch.softmax(head(stack[:, one]), dim=1) for one in range(6)]).mean(dim=0)
    guesses = guessed_labels(head, stack, 0.5)
    assert torch.allclose(guesses, sharpened(by_hand, 0.5), atol=1e-6) and not guesses.requires_grad

    def gradient(wanted: torch.Tensor) -> torch.Tensor:
        head.zero_grad()
        squared_error(head(stack[:, 0]), wanted).backward()
        return torch.cat([one.grad.flatten() for one in head.parameters()]).clone()

    detached = gradient(guesses)
    assert torch.equal(detached, gradient(guesses.clone()))
    # Negative control: guesses that gradients flow through push the head elsewhere.
    attached = sharpened(torch.softmax(head(stack.flatten(0, 1)), dim=1).unflatten(0, (5, 6)).mean(dim=1), 0.5)
    assert not torch.allclose(gradient(attached), detached, rtol=0.05)


# --- the pool helps


def moons(seed: int) -> tuple[Material, np.ndarray, np.ndarray]:
    """Two moons: four labels a class, 300 points without, 400 to be judged by; versions jitter."""
    random = np.random.default_rng(seed)
    points, kinds = make_moons(700, noise=0.1, random_state=seed)
    points = points.astype(np.float32)
    labelled = np.concatenate([random.choice(np.flatnonzero(kinds[:300] == one), 4, replace=False) for one in (0, 1)])

    def jittered(rows: np.ndarray) -> np.ndarray:
        return (rows[:, None] + 0.1 * random.normal(size=(len(rows), 4, 2))).astype(np.float32)

    material = Material(jittered(points[labelled]), kinds[labelled].astype(np.int64), jittered(points[:300]))
    return material, points[300:], kinds[300:]


def accuracy(seed: int, recipe: Recipe) -> float:
    material, points, kinds = moons(seed)
    generator = seeded(seed)
    head = Head(2, 32, 2, generator)
    train_head(
        head,
        material,
        recipe,
        TrainingPlan(epochs=7, batch=64, learning_rate=1e-2),
        random=np.random.default_rng(seed),
        generator=generator,
        method="mixmatch",
    )
    with torch.no_grad():
        found = head(torch.from_numpy(points)).argmax(dim=1).numpy()
    return float((found == kinds).mean())


def test_two_moons_with_four_labels_each_beat_the_labels_alone() -> None:
    alone = np.mean([accuracy(seed, Recipe(2, 0.5, 0.0, 0.0, 0.5)) for seed in SEEDS])
    with_pool = np.mean([accuracy(seed, Recipe(2, 0.5, 0.2, 30.0, 0.5)) for seed in SEEDS])
    assert with_pool > alone + 0.02


# --- the whole method


def world(pool: int = 24, kinds: int = 3, bank: int = 16) -> Reference:
    """Normal pictures, two registered kinds of four examples, and a pool of all."""
    return Reference(
        bank=batches([picture(seed) for seed in range(bank)], 0, NEEDS),
        keys=np.arange(bank, dtype=np.uint64),
        labels={
            f"kind {kind}": batches([picture(100 * kind + seed, kind) for seed in range(4)], 100 * kind, NEEDS)
            for kind in range(1, kinds)
        },
        unlabelled=batches([picture(2000 + seed, seed % 3) for seed in range(pool)], 2000, NEEDS),
    )


def asked(pictures: list[np.ndarray]) -> Inputs:
    pixels = np.stack(pictures)
    return Inputs(ids=np.arange(len(pixels)), vectors=BACKBONE.vectors(pixels))


def test_registered_kinds_are_told_from_normal_and_from_each_other() -> None:
    scorer = MixMatch(MixMatchParams(versions=4, hidden=32, epochs=25)).fit(world(), seed=1)
    found = scorer.score(asked([picture(9000 + seed, seed % 3) for seed in range(30)]))
    names = ["(normal)", "kind 1", "kind 2"]
    assert list(found.probabilities) == names
    shares = np.stack([found.probabilities[name] for name in names], axis=1)
    assert (shares.argmax(axis=1) == np.arange(30) % 3).mean() > 0.9
    strange, normal = found.image[np.arange(30) % 3 > 0], found.image[::3]
    assert np.median(normal) < 0.0 < np.median(strange)
    assert np.allclose(found.image, np.log((1 - shares[:, 0]) / shares[:, 0]), atol=0.02, rtol=0.02)
    report = []
    again = MixMatch(QUICK).fit(world(), seed=1, progress=lambda done, total: report.append(done / total))
    assert report == sorted(report) and report[-1] == 1.0
    assert not np.array_equal(again.score(asked([picture(1)])).image, scorer.score(asked([picture(1)])).image)


def test_versions_are_the_image_and_small_changes_of_it() -> None:
    image = picture(5, 1)
    found = versions(image, 6, Changes(mirror=True, shift=0.1, light=0.2), np.random.default_rng(3))
    assert found.shape == (6, 3, SIDE, SIDE) and np.array_equal(found[0], image)
    assert all(not np.array_equal(one, image) for one in found[1:])
    still = versions(image, 3, Changes(mirror=False, shift=0.0, light=0.0), np.random.default_rng(3))
    assert np.allclose(still, image, atol=1e-5)
    flipped = versions(image, 20, Changes(mirror=True, shift=0.0, light=0.0), np.random.default_rng(3))
    is_mirrored = [np.allclose(one, image[:, :, ::-1], atol=1e-5) for one in flipped]
    assert 3 < sum(is_mirrored) < 17
    moved = versions(image, 12, Changes(mirror=False, shift=0.1, light=0.0), np.random.default_rng(4))[1:]
    inner = image[:, 8:-8, 8:-8]

    def is_inside(one: np.ndarray) -> bool:
        places = [(y, x) for y in range(5, 12) for x in range(5, 12)]
        return any(np.allclose(one[:, y : y + 16, x : x + 16], inner, atol=1e-5) for y, x in places)

    assert all(is_inside(one) for one in moved)


def test_what_it_cannot_learn_from_is_refused() -> None:
    method = MixMatch(QUICK)
    with pytest.raises(BankTooSmall, match="at least 8 normal images; got 3"):
        method.fit(world(bank=3), seed=1)
    with pytest.raises(FitRefused, match="2 classes and 0 unlabelled"):
        method.fit(world(pool=0), seed=1)
    with pytest.raises(FitRefused, match="0 classes and 24 unlabelled"):
        method.fit(world(kinds=1), seed=1)
    whole = world()
    blind = [Inputs(ids=one.ids, vectors=one.vectors) for one in whole.bank]
    with pytest.raises(ParameterInvalid, match="`pixels`"):
        method.fit(Reference(blind, whole.keys, labels=whole.labels, unlabelled=whole.unlabelled), seed=1)
    with pytest.raises(ParameterInvalid, match="guesses"):
        MixMatchParams.parse("mixmatch", {"versions": 2, "guesses": 3})


def test_a_large_bank_and_pool_are_learnt_from_in_part() -> None:
    params = MixMatchParams(versions=2, epochs=1, hidden=8, bank_images=8, pool_images=10)
    seen: list[int] = []

    class Counting:
        width = BACKBONE.width

        def vectors(self, pixels: np.ndarray) -> np.ndarray:
            seen.append(len(pixels))
            return BACKBONE.vectors(pixels)

    whole = world()

    def counted(group):
        return [Inputs(ids=one.ids, vectors=one.vectors, pixels=one.pixels, backbone=Counting()) for one in group]

    reference = Reference(
        counted(whole.bank),
        whole.keys,
        labels={name: counted(one) for name, one in whole.labels.items()},
        unlabelled=counted(whole.unlabelled),
    )
    MixMatch(params).fit(reference, seed=1)
    assert seen == [2] * (8 + 2 * 4 + 10)
