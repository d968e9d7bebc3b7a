"""Patch nearest neighbours: by hand, against loops, what the memory promises, where a defect shows, failures."""

import math

import numpy as np
import pytest
import torch

from index import NotFinite
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, ParameterInvalid
from models.fitting import fit, scores_of
from models.methods.patch_knn import METHOD, StreamingCoreset, greedy_coreset
from models.methods.patch_knn.maths import neighbourhood_mean, on_grid, patch_features, random_projection, reweighted
from tests.contract.method_world import BACKBONE, DEFECT, SIDE, picture
from tests.models.methods.banks import keys_of, through_json
from tests.oracles import patch_knn as oracle

STAGES = {2: (8, 6), 3: (4, 10)}  # stage -> side, channels
SEEDS = range(5)


def inputs(maps: dict[int, np.ndarray], first: int = 0) -> Inputs:
    count = len(next(iter(maps.values())))
    return Inputs(ids=np.arange(first, first + count), maps={one: np.float32(each) for one, each in maps.items()})


def drawn(seed: int, images: int) -> Inputs:
    """Images of random maps: no two patches alike."""
    random = np.random.default_rng(seed)
    return inputs({one: random.normal(size=(images, side, side, c)) for one, (side, c) in STAGES.items()})


def fitted(bank: list[Inputs], seed: int = 0, **params):
    size = sum(map(len, bank))
    return METHOD(METHOD.Params(**params)).fit(Reference(bank=bank, keys=keys_of(size)), seed=seed)


def pictures(seeds: range, defect: bool = False) -> Inputs:
    pixels = np.stack([picture(seed, defect=defect) for seed in seeds])
    return Inputs(ids=np.arange(len(pixels)), vectors=BACKBONE.vectors(pixels), maps=BACKBONE.maps(pixels, (2, 3)))


# By hand, and against loops


def test_by_hand():
    # One channel, one stage, no neighbourhood: the memory is {0, 4}, and 1, 4, 6, 13 lie 1, 0, 2, 9 from it.
    bank = inputs({2: np.array([[[0.0], [4.0]], [[0.0], [4.0]]])[None]})
    scorer = fitted([bank], stages=(2,), neighbourhood=1)
    assert len(scorer.memory) == 2  # equal patches are one
    found = scorer.score(inputs({2: np.array([[[1.0], [4.0]], [[6.0], [13.0]]])[None]}))
    assert found.pixels[0].tolist() == [[1.0, 0.0], [2.0, 9.0]]
    assert found.image.tolist() == [9.0]
    both = fitted([bank], stages=(2,), neighbourhood=1, k=2)
    assert both.score(inputs({2: np.full((1, 1, 1, 1), 6.0)})).image.tolist() == [4.0]  # of 2 and 6


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_the_neighbourhood_is_a_double_loop(side):
    random = np.random.default_rng(side)
    for shape in ((5, 7, 3), (2, 3, 2), (1, 1, 4)):
        cells = random.normal(size=shape).astype(np.float32)
        assert neighbourhood_mean(cells, side) == pytest.approx(oracle.neighbourhood_mean(cells, side), abs=1e-5)


def test_a_map_is_brought_to_another_grid_as_torch_does_it():
    random = np.random.default_rng(0)
    for (h, w), (height, width) in (((4, 3), (8, 6)), ((7, 7), (14, 13)), ((1, 2), (3, 5))):
        cells = random.normal(size=(h, w, 5)).astype(np.float32)
        given = torch.from_numpy(cells).permute(2, 0, 1)[None]
        expected = torch.nn.functional.interpolate(given, (height, width), mode="bilinear", align_corners=False)
        assert on_grid(cells, height, width) == pytest.approx(expected[0].permute(1, 2, 0).numpy(), abs=1e-5)
    assert on_grid(cells, 1, 2) is cells  # the same grid: the same bits


def test_scores_are_loops_over_the_memory():
    bank, asked = drawn(1, 3), drawn(2, 2)
    for k in (1, 3):
        scorer = fitted([bank], memory_patches=20, k=k)
        memory = scorer.export().arrays["memory"]
        assert len(memory) == 20
        found = scorer.score(asked)
        for row in range(2):
            features = patch_features([asked.maps[stage][row] for stage in (2, 3)], 3)
            rows = (features - scorer.recipe.offset).reshape(-1, 16)
            expected = oracle.patch_scores(rows, memory, k)
            assert found.pixels[row].ravel() == pytest.approx(expected, rel=1e-5)
            assert found.image[row] == found.pixels[row].max()


def test_reweighting_is_the_formula_and_changes_only_the_images_score():
    support = np.float32([1.0, 1.5, 3.0])
    share = math.exp(1.0) / sum(math.exp(one) for one in (1.0, 1.5, 3.0))
    assert reweighted(2.0, 1.0, support) == pytest.approx((1 - share) * 2.0)
    assert reweighted(2.0, 900.0, np.float32([900.0, 905.0])) == pytest.approx(2.0 / (1 + math.exp(-5.0)))
    bank, asked = drawn(3, 4), drawn(4, 3)
    plain, weighed = fitted([bank], memory_patches=30), fitted([bank], memory_patches=30, reweight=True, support=4)
    assert np.array_equal(plain.score(asked).pixels, weighed.score(asked).pixels)
    memory = weighed.export().arrays["memory"].astype(np.float64)
    for row, score in enumerate(weighed.score(asked).image):
        features = patch_features([asked.maps[stage][row] for stage in (2, 3)], 3)
        rows = (features - weighed.recipe.offset).reshape(-1, 16).astype(np.float64)
        gaps = np.linalg.norm(rows[:, None] - memory, axis=2)
        strangest = int(gaps.min(axis=1).argmax())
        nearest = int(gaps[strangest].argmin())
        around = np.argsort(np.linalg.norm(memory - memory[nearest], axis=1))[:4]
        weight = 1 - np.exp(gaps[strangest, nearest]) / np.exp(gaps[strangest, around]).sum()
        assert score == pytest.approx(weight * gaps[strangest, nearest], rel=1e-4)
    assert fitted([inputs({2: np.zeros((1, 2, 2, 3))})], stages=(2,), reweight=True).score(
        inputs({2: np.ones((1, 2, 2, 3))})
    ).image == pytest.approx([3**0.5])  # a memory of one patch: there is nothing to compare its rarity with


# The memory


def test_with_the_whole_memory_every_patch_of_a_bank_image_has_distance_zero():
    bank, other = drawn(5, 3), drawn(6, 3)
    whole = fitted([bank], memory_patches=3 * 64)
    assert len(whole.memory) == 3 * 64 and whole.radius == 0.0
    assert not whole.score(bank).pixels.any()
    # Negative controls: another image's patches, and a memory that does not hold all.
    assert (whole.score(other).pixels > 0).all()
    assert fitted([bank], memory_patches=60).score(bank).pixels.any()


def test_a_larger_memory_never_gives_a_larger_distance():
    bank, asked = [drawn(7, 4)], drawn(8, 4)
    before = None
    for size in (128, 150, 200, 256):  # each choice begins with the one before: 256 patches fit twice 128
        heat = fitted(bank, memory_patches=size).score(asked).pixels
        assert before is None or (heat <= before).all()
        before = heat
    # Negative control: a memory as large that holds other patches is larger somewhere.
    assert (fitted([drawn(9, 4)], memory_patches=256).score(asked).pixels > before).any()


def test_the_greedy_choice_is_a_double_loop_and_covers_better_than_chance():
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        rows = random.normal(size=(60, 4)).astype(np.float32) + 30.0
        rows[20:30] = rows[10]  # equal ones
        found = greedy_coreset(rows, 12, seed)
        expected, radius = oracle.farthest_first(rows, 12, seed)
        assert found.chosen.tolist() == expected
        assert found.radius == pytest.approx(radius, rel=1e-4)
        for row, (nearest, gap) in enumerate(zip(found.nearest, found.distances, strict=True)):
            assert gap == pytest.approx(oracle.distance(rows[row], rows[found.chosen[nearest]]), abs=1e-4)
        assert len(greedy_coreset(rows, 60, 0).chosen) == 50  # the equal ones count once
    chance, greedy = [], []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        rows = (random.normal(size=(2000, 8)) * 0.9 ** np.arange(8)).astype(np.float32)
        drawn_rows = rows[random.choice(2000, 50, replace=False)]
        chance.append(np.linalg.norm(rows[:, None] - drawn_rows, axis=2).min(axis=1).max())
        greedy.append(greedy_coreset(rows, 50, 0).radius)
    assert np.mean(greedy) < 0.8 * np.mean(chance)


def stream(rows: np.ndarray, size: int, piece: int, seed: int = 0):
    made = StreamingCoreset(size, np.random.default_rng(seed))
    held = []
    for start in range(0, len(rows), piece):
        made.add(rows[start : start + piece])
        held.append(len(made))
    return made.remembered(), max(held)


def covered(rows: np.ndarray, memory: np.ndarray) -> float:
    return float(np.linalg.norm(rows[:, None].astype(np.float64) - memory, axis=2).min(axis=1).max())


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_a_stream_is_remembered_within_a_fixed_room_and_a_proven_radius(drift):
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        rows = random.normal(size=(3000, 3)) + drift * np.linspace(0, 20, 3000)[:, None]
        rows = rows.astype(np.float32)
        found, held = stream(rows, 40, 100, seed)
        assert len(found.rows) == 40 and held <= 3 * 40
        batch = greedy_coreset(rows, 40, 0).radius
        radius = covered(rows, found.rows)
        assert radius <= found.radius * (1 + 1e-5)  # the promise holds ...
        assert found.floor <= batch  # ... and so does its other side: nobody gets below
        assert (
            batch / 2 <= 2 * radius
        )  # the batch choice is within twice the best, so the stream cannot beat half of it
        assert radius < 3.0 * batch
        if drift:  # negative control: the first forty rows, a fixed room without a choice, break the same bound
            assert covered(rows, rows[:40]) > found.radius


def test_a_stream_that_fits_is_the_greedy_choice_itself():
    rows = np.random.default_rng(3).normal(size=(80, 5)).astype(np.float32)
    found, _ = stream(rows, 40, 17, seed=4)
    first = int(np.random.default_rng(4).integers(80))
    assert np.array_equal(found.rows, rows[greedy_coreset(rows, 40, first).chosen])
    assert found.radius == pytest.approx(greedy_coreset(rows, 40, first).radius)
    assert found.floor == pytest.approx(found.radius / 2)


def test_near_duplicates_take_one_place_and_rare_patches_keep_theirs():
    random = np.random.default_rng(0)
    kinds = random.normal(size=(10, 6)) * 10
    rows = np.concatenate([kinds[random.integers(0, 9, 4000)], kinds[9:]]) + random.normal(0, 1e-3, (4001, 6))
    found, _ = stream(rows.astype(np.float32), 10, 128)
    assert {int(np.linalg.norm(kinds - one, axis=1).argmin()) for one in found.rows} == set(range(10))
    # Negative control: a draw of as many rows misses the kind that one row in four thousand is.
    chosen = rows[random.choice(4001, 10, replace=False)]
    assert {int(np.linalg.norm(kinds - one, axis=1).argmin()) for one in chosen} != set(range(10))


def test_the_seed_decides_and_batches_do_not():
    bank, asked = drawn(10, 12), drawn(11, 2)
    parts = [inputs({one: maps[start : start + 5] for one, maps in bank.maps.items()}) for start in (0, 5, 10)]
    first = fitted([bank], seed=1, memory_patches=50).export().arrays["memory"]
    assert np.array_equal(first, fitted(parts, seed=1, memory_patches=50).export().arrays["memory"])
    assert not np.array_equal(first, fitted([bank], seed=2, memory_patches=50).export().arrays["memory"])
    scorer = fitted([bank], memory_patches=50, projection=8)
    alone = [scorer.score(inputs({one: maps[row : row + 1] for one, maps in asked.maps.items()})) for row in (0, 1)]
    assert np.array_equal(np.concatenate([one.pixels for one in alone]), scorer.score(asked).pixels)


# Where a defect shows


def test_one_cell_reaches_its_neighbourhood_and_no_farther():
    random = np.random.default_rng(0)
    maps = [random.normal(size=(side, side, 4)).astype(np.float32) for side in (12, 6)]
    changed = maps[0].copy()
    changed[5, 7] += 1.0

    def reached(side: int) -> list[tuple[int, int]]:
        gap = patch_features([changed, maps[1]], side) != patch_features(maps, side)
        return [tuple(one) for one in np.argwhere(gap.any(axis=2))]

    assert reached(3) == [(y, x) for y in (4, 5, 6) for x in (6, 7, 8)]
    assert reached(1) == [(5, 7)]  # negative control: without a neighbourhood a cell sees itself alone


def test_a_planted_defect_raises_the_map_where_it_lies_and_the_pooled_vector_hardly_moves():
    inside = np.zeros((8, 8), bool)
    cells = slice(DEFECT[0] * 8 // SIDE, -(-DEFECT[1] * 8 // SIDE))
    inside[cells, cells] = True
    around = np.zeros((8, 8), bool)
    reach = slice(0, cells.stop + 3)  # two cells of neighbourhood in the coarser stage are four of the finer
    around[reach, reach] = True
    bank, clean, strange = pictures(range(40)), pictures(range(500, 512)), pictures(range(500, 512), defect=True)
    scorer = fitted([bank])
    usual, found = scorer.score(clean), scorer.score(strange)
    hottest = [np.unravel_index(heat.argmax(), heat.shape) for heat in found.pixels]
    assert all(inside[place] for place in hottest)
    rise = found.pixels - usual.pixels
    assert rise[:, inside].mean() > 1.0 * usual.image.std() and (found.image > usual.image.max()).all()
    assert np.abs(rise[:, ~around]).max() == 0.0  # far from the defect nothing moves: patches see no farther
    # Negative control: the clean images themselves are not hot there.
    assert usual.pixels[:, inside].mean() < 1.5 * usual.pixels[:, ~inside].mean()

    def separation(normal: np.ndarray, odd: np.ndarray) -> float:
        return float((odd.mean() - normal.mean()) / normal.std())

    def pooled(asked: Inputs) -> np.ndarray:
        gaps = np.linalg.norm(asked.vectors[:, None] - bank.vectors, axis=2)
        return np.sort(gaps, axis=1)[:, :2].mean(axis=1)

    # The pooled vector averages the defect over the image, and stands out less.
    assert separation(usual.image, found.image) > 1.5 * separation(pooled(clean), pooled(strange))


def test_a_projection_keeps_distances_on_average():
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 300)).astype(np.float32)
    ratios = []
    for seed in SEEDS:
        short = rows @ random_projection(300, 128, np.random.default_rng(seed))
        ratios.append(np.linalg.norm(short[1:] - short[:-1], axis=1) / np.linalg.norm(rows[1:] - rows[:-1], axis=1))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.02)
    assert np.std(ratios) == pytest.approx(1 / math.sqrt(2 * 128), rel=0.2)
    scorer = fitted([drawn(1, 2)], projection=8)
    assert scorer.memory.width == 8 and scorer.recipe.projection.shape == (16, 8)
    assert fitted([drawn(1, 2)], projection=16).recipe.projection is None  # no narrower than the patches


def test_through_the_services_fit_a_normal_image_is_not_red():
    bank = [pictures(range(start, start + 20)) for start in range(0, 60, 20)]
    held = [pictures(range(seed, seed + 1)) for seed in range(100, 140)]
    made = fit(METHOD(METHOD.Params()), Reference(bank=bank, keys=keys_of(60)), held, seed=0)
    scale = made.heat_scale
    assert scale is not None and scale.low < scale.border < scale.high
    normal = [one.pixels.max() for one in scores_of(made.scorer, pictures(range(600, 620)))]
    strange = [one.pixels.max() for one in scores_of(made.scorer, pictures(range(600, 620), defect=True))]
    assert max(normal) < scale.high and np.mean(np.array(normal) > scale.border) <= 0.2
    assert min(strange) > scale.border


# State, progress, failures


def test_what_is_restored_scores_the_same():
    asked = drawn(21, 3)
    for params in ({}, {"projection": 8, "reweight": True, "k": 2}, {"stages": (3,), "neighbourhood": 5}):
        scorer = fitted([drawn(20, 4)], memory_patches=40, **params)
        again = METHOD(METHOD.Params()).restore(through_json(scorer.export()))
        assert np.array_equal(scorer.score(asked).pixels, again.score(asked).pixels)
        assert np.array_equal(scorer.score(asked).image, again.score(asked).image)
        assert (again.radius, again.floor) == (scorer.radius, scorer.floor)


def test_progress_is_told_and_cancels():
    told = []
    METHOD(METHOD.Params(memory_patches=200)).fit(
        Reference(bank=[drawn(0, 5), drawn(1, 5)], keys=keys_of(10)), seed=0, progress=lambda *one: told.append(one)
    )
    assert told[-1] == (11, 11) and [one[0] for one in told] == sorted(one[0] for one in told)
    assert (10, 11) in told[-3:]  # also while the choice is made at the end

    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Enough

    with pytest.raises(Enough):
        METHOD(METHOD.Params()).fit(Reference(bank=[drawn(0, 5)], keys=keys_of(5)), seed=0, progress=stop)


def test_failures_are_named():
    with pytest.raises(BankTooSmall, match="at least 1 image to fit; got 0"):
        fitted([])
    with pytest.raises(ParameterInvalid, match="must hold the stages 1, 3; got none of 1"):
        fitted([drawn(0, 2)], stages=(1, 3))
    scorer = fitted([drawn(0, 2)])
    with pytest.raises(ParameterInvalid, match="must have 16 channels in all, as the bank's had; got 9"):
        scorer.score(inputs({2: np.zeros((1, 4, 4, 4)), 3: np.zeros((1, 2, 2, 5))}))
    broken = drawn(0, 1)
    broken.maps[2][0, 0, 0, 0] = np.nan
    with pytest.raises(NotFinite):
        scorer.score(broken)
    with pytest.raises(NotFinite):
        fitted([broken])
    for wrong in ({"stages": [3, 2]}, {"stages": [2, 2]}, {"stages": []}, {"neighbourhood": 2}, {"stages": [5]}):
        with pytest.raises(ParameterInvalid, match="of method `patch_knn` must"):
            METHOD.Params.parse("patch_knn", wrong)
