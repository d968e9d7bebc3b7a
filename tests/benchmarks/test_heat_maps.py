"""`oddity bench heat-maps`: folders with masks, the metrics against loops, and planted defects that are found."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from app.embedders import Embedders
from app.settings import Settings
from benchmarks.backbones import read_folder
from benchmarks.errors import BenchmarkRefused
from benchmarks.heat_maps import CELL, GAP, HeatMapsPlan, _grown, _shrunk, heat_maps_text, measure_heat_maps
from benchmarks.masked_folders import has_masks, read_kinds, read_masked, split
from benchmarks.pixel_metrics import pixel_roc_auc, region_overlap
from models.backbones.embedder import EmbeddingSpec
from models.catalog import installed
from models.contract import Give, Need
from tests.app.cli.conftest import Oddity, oddity, quick

__all__ = ["oddity", "quick"]
SPEC = EmbeddingSpec(weights="stand-in", image_size=64)
MAPPING = next(
    name
    for name, found in installed().items()
    if Give.HEAT_MAP in found.gives.outputs and found.needs.required == (Need.MAPS,) and not found.live
)
PLAN = HeatMapsPlan(methods=(MAPPING,), seeds=1, quick=True, side=64)
WIDTH, HEIGHT, SPOT = 96, 72, 18


def drawn(seed: int, defect: bool = False) -> tuple[Image.Image, Image.Image]:
    """A woven cloth and its mask; a defect is a dark square anywhere."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = 140 + 30 * np.sin(x / 2) * np.sin(y / 2) + random.normal(0, 4, (HEIGHT, WIDTH)) + random.uniform(-5, 5)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if defect:
        top, left = random.integers(4, HEIGHT - SPOT - 4), random.integers(4, WIDTH - SPOT - 4)
        mask[top : top + SPOT, left : left + SPOT] = 255
        pixels[mask > 0] -= 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB"), Image.fromarray(mask)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good/, bad/ with masks beside; two good images and one bad one are there twice."""
    folder = tmp_path_factory.mktemp("plain")
    for seed in range(44):
        save(drawn(seed)[0], folder / "good" / f"{seed:02}.png")
    for seed in range(100, 110):
        image, mask = drawn(seed, defect=True)
        save(image, folder / "bad" / f"{seed}.png")
        save(mask, folder / "bad" / f"{seed}_mask.png")
    for seed in (3, 4):
        save(drawn(seed)[0], folder / "good" / f"again-{seed}.bmp")  # other bytes, the same pixels
    image, mask = drawn(100, defect=True)
    save(image, folder / "bad" / "again.png")
    save(mask, folder / "bad" / "again_mask.png")
    save(image, folder / "good" / "wrong.png")  # a defective one among the good: the defective one is kept
    return folder


@pytest.fixture
def embedders(tmp_path: Path) -> Embedders:
    opened = Embedders(Settings(data=tmp_path / "data", weights="stand-in", image_size=64, threads=1), 1)
    yield opened
    opened.close()


def read(folder: Path, embedders: Embedders):
    return read_masked(folder, embedders, embedders.get(SPEC).embedder)


def test_the_same_images_as_kinds(plain: Path) -> None:
    assert has_masks(plain) and not has_masks(plain / "good")
    found = read_kinds(plain)
    bank, good, defective = found.train["good"], found.test["good"], found.test["defective"]
    assert (len(bank), len(good), len(defective)) == (23, 23, 10) and not set(bank) & set(good)
    assert {one.parent.name for one in (*bank, *good)} == {"good"}
    assert plain / "good" / "wrong.png" not in {*bank, *good}, "the same file as a defective one"
    assert not any(one.stem.endswith("_mask") for one in defective)
    assert read_folder(plain, 5) == read_kinds(plain, 5)
    assert [len(one) for one in (*read_kinds(plain, 5).train.values(), *read_kinds(plain, 5).test.values())] == [5] * 3


# The metrics


def overlap_by_loops(maps: list[np.ndarray], masks: list[np.ndarray], fpr_max: float) -> float:
    """One threshold after another, one region after another; regions by flooding."""
    regions = []
    for number, mask in enumerate(masks):
        left = {tuple(one) for one in np.argwhere(mask)}
        while left:
            region, edge = set(), [left.pop()]
            while edge:
                y, x = edge.pop()
                region.add((y, x))
                for near in [(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)]:
                    if near in left:
                        left.remove(near)
                        edge.append(near)
            regions.append((number, region))
    clean = [heat[y, x] for heat, mask in zip(maps, masks, strict=True) for y, x in np.argwhere(~mask)]
    points = [(0.0, 0.0)]
    for border in sorted({float(one) for heat in maps for one in heat.ravel()}, reverse=True):
        rate = sum(one >= border for one in clean) / len(clean)
        found = [sum(maps[n][place] >= border for place in region) / len(region) for n, region in regions]
        points.append((rate, sum(found) / len(found)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > fpr_max:
            y1 = y0 + (fpr_max - x0) / (x1 - x0) * (y1 - y0)
            return (area + (fpr_max - x0) * (y0 + y1) / 2) / fpr_max
        area += (x1 - x0) * (y0 + y1) / 2
    return area / fpr_max


def test_the_overlap_is_a_loop_over_thresholds_and_regions() -> None:
    for seed in range(6):
        random = np.random.default_rng(seed)
        masks = [random.random((9, 7)) < share for share in (0.1, 0.3, 0.0)]
        maps = [random.integers(0, 12, (9, 7)).astype(np.float32) + 4 * mask for mask in masks]  # many ties
        for fpr_max in (0.05, 0.3, 1.0):
            expected = overlap_by_loops(maps, masks, fpr_max)
            assert region_overlap(maps, masks, fpr_max) == pytest.approx(expected, abs=1e-12)
        joined = [np.concatenate([one.ravel() for one in many]) for many in (masks, maps)]
        assert pixel_roc_auc(maps, masks) == pytest.approx(roc_auc_score(*joined), abs=1e-12)


def test_the_overlap_by_hand() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = mask[5:9, 5:9] = True
    assert region_overlap([mask.astype(np.float32)], [mask]) == pytest.approx(1.0)
    assert region_overlap([np.zeros((10, 10), np.float32)], [mask]) == pytest.approx(0.15)  # guessing: 0.3 / 2
    small = np.zeros((10, 10), np.float32)
    small[0, 0] = 1.0  # the small region counts as much as the large one: half is found from the start
    assert region_overlap([small], [mask]) == pytest.approx(0.5 + 0.5 * 0.15)
    # Negative control: counted by pixels the small region would hardly matter.
    assert pixel_roc_auc([small], [mask]) < 0.55
    corner = np.zeros((4, 4), bool)
    corner[1, 1] = corner[2, 2] = True  # they touch at a corner: one region, of which half is found
    half = np.zeros((4, 4), np.float32)
    half[1, 1] = 1.0
    assert region_overlap([half], [corner], 1.0) == pytest.approx(0.75)
    with pytest.raises(BenchmarkRefused, match="must mark some pixels"):
        region_overlap([half], [np.zeros((4, 4), bool)])


def test_maps_grow_and_masks_shrink_onto_the_same_pixels() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[1, 3] = 1.0
    y, x = np.unravel_index(_grown(heat, 96, 48).argmax(), (48, 96))
    assert abs((y + 0.5) / 48 - 1.5 / 4) < 0.05 and (x + 0.5) / 96 >= 3.5 / 4 - 0.05
    mask = np.zeros((48, 96), bool)
    mask[20, 90] = True  # a single pixel is not lost
    assert np.argwhere(_shrunk(mask, 24, 12)).tolist() == [[5, 22]]
    assert np.array_equal(_shrunk(mask, 96, 48), mask)


# Folders


def test_equal_pictures_are_left_out_first_and_counted(plain: Path, embedders: Embedders) -> None:
    data = read(plain, embedders)
    assert (len(data.defective), len(data.flawless), data.duplicates, data.refused) == (10, 44, 4, 0)
    one = next(one for one in data.defective if one.file.stem == "101")
    assert one.pixels().sum() == SPOT * SPOT and one.pixels().shape == (HEIGHT, WIDTH)
    bank, test = split(data.flawless, 0.7, 0)
    assert len(bank) == 31 and not {one.file for one in bank} & {one.file for one in test}
    assert {one.file for one in split(data.flawless, 0.7, 1)[0]} != {one.file for one in bank}


def test_the_layout_of_parts(tmp_path: Path, embedders: Embedders) -> None:
    for part in range(4):
        for number in range(3):
            image, mask = drawn(10 * part + number, defect=number == 0)
            save(image, tmp_path / f"kos{part:02}" / f"Part{number}.jpg")
            save(mask, tmp_path / f"kos{part:02}" / f"Part{number}_label.bmp")
    data = read(tmp_path, embedders)
    assert (len(data.defective), len(data.flawless)) == (4, 8)
    assert {one.group for one in data.flawless} == {"kos00", "kos01", "kos02", "kos03"}
    bank, test = split(data.flawless, 0.5, 0)
    assert len(bank) == len(test) == 4
    assert not {one.group for one in bank} & {one.group for one in test}  # no part on both sides


def test_the_layout_of_inspection(tmp_path: Path, embedders: Embedders) -> None:
    for seed in range(6):
        save(drawn(seed)[0], tmp_path / ("train" if seed < 4 else "test") / "good" / f"{seed % 4:03}.png")
    for seed, kind in ((20, "cut"), (21, "stain")):
        image, mask = drawn(seed, defect=True)
        save(image, tmp_path / "test" / kind / "000.png")
        save(mask, tmp_path / "ground_truth" / kind / "000_mask.png")
    data = read(tmp_path, embedders)
    assert {one.file.parent.name: one.mask.parent.name for one in data.defective} == {"cut": "cut", "stain": "stain"}
    bank, test = split(data.flawless, 0.7, 5)
    assert {one.part for one in bank} == {"train"} and {one.part for one in test} == {"test"} and len(bank) == 4


def test_what_cannot_be_measured_says_why(plain: Path, embedders: Embedders, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkRefused, match=r"`method` must give heat maps, as .* do; got dn2"):
        measure_heat_maps(plain, embedders, SPEC, HeatMapsPlan(methods=("dn2",)), tmp_path, tmp_path)
    image, mask = drawn(1, defect=True)
    save(image, tmp_path / "a" / "bad" / "x.png")
    with pytest.raises(BenchmarkRefused, match=r"x.png must have a mask \(x_mask.png\) or lie in good/"):
        read(tmp_path / "a", embedders)
    save(mask, tmp_path / "a" / "masks" / "x.png")
    with pytest.raises(BenchmarkRefused, match="must hold flawless and defective images"):
        read(tmp_path / "a", embedders)
    save(mask, tmp_path / "a" / "masks" / "y.png")
    with pytest.raises(BenchmarkRefused, match=r"y.png must be the mask of one image; 0 are called y"):
        read(tmp_path / "a", embedders)
    save(drawn(2)[0], tmp_path / "b" / "good" / "y.png")
    save(image, tmp_path / "b" / "bad" / "x.png")
    save(mask.resize((10, 10)), tmp_path / "b" / "bad" / "x_mask.png")
    with pytest.raises(BenchmarkRefused, match="must be of the size of its image, 96 x 72"):
        read(tmp_path / "b", embedders)
    save(mask, tmp_path / "b" / "bad" / "x_mask.png")
    with pytest.raises(BenchmarkRefused, match="must both hold flawless images"):
        measure_heat_maps(tmp_path / "b", embedders, SPEC, PLAN, tmp_path, tmp_path)


# The measurement


def test_planted_defects_are_found_where_they_lie(plain: Path, embedders: Embedders, tmp_path: Path) -> None:
    found = measure_heat_maps(plain, embedders, SPEC, PLAN, tmp_path / "vectors", tmp_path)
    near, mapped = found["measured"]
    assert (near["method"], mapped["method"]) == (None, MAPPING)
    assert mapped["roc_auc"] == 1.0 and mapped["pixel_roc_auc"] > 0.85 and mapped["region_overlap"] > 0.5
    assert 0.0 < near["roc_auc"] <= 1.0 and mapped["coloured"] <= 0.2
    assert mapped["fitted"] + mapped["calibration"] == near["fitted"] == 31
    assert mapped["fit_s"] > 0 and mapped["score_ms"] > 0 and mapped["state_bytes"] > 0
    assert found["data"]["duplicates"] == 4
    # Four defective images in a row, their masks below, and below those their maps over the same images.
    picture = Image.open(tmp_path / f"heat_maps-{plain.name}-{MAPPING}.webp")
    down = CELL * HEIGHT // WIDTH
    assert picture.size == (4 * CELL + 3 * GAP, 3 * down + 2 * GAP)
    pixels = np.asarray(picture, np.int64)
    changes = []
    for column, number in enumerate((100, 101, 102, 103)):
        seen, truth, mapped_over = (
            pixels[row * (down + GAP) :][:down, column * (CELL + GAP) :][:, :CELL] for row in range(3)
        )
        original, mask = drawn(number, defect=True)
        expected = np.asarray(original.resize((CELL, down), Image.Resampling.LANCZOS), np.int64)
        assert np.abs(seen - expected).mean() < 4.0  # the picture is compressed
        is_defective = np.asarray(mask.resize((CELL, down), Image.Resampling.NEAREST)) > 0
        assert ((truth.mean(axis=2) > 127) == is_defective).mean() > 0.98
        change = np.abs(mapped_over - expected).sum(axis=2)
        changes.append((change[is_defective].mean(), change[~is_defective].mean()))
    on_defects, beside = np.mean(changes, axis=0)
    assert on_defects > 1.1 * beside  # not by more: a cell of the quick method's grid is larger than the defects
    text = "\n".join(heat_maps_text(found))
    assert f"| {MAPPING} |" in text and "4 with the pixels of another one" in text
    again = measure_heat_maps(plain, embedders, SPEC, PLAN, tmp_path / "vectors", tmp_path)["measured"][1]
    assert {one: again[one] for one in again if one not in ("fit_s", "score_ms")} == {
        one: mapped[one] for one in mapped if one not in ("fit_s", "score_ms")
    }


def test_the_command(oddity: Oddity, plain: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "heat-maps", plain, "--method", MAPPING, "--seeds", 2, "--quick", "--side", 32,
        "--out", tmp_path / "o", "--data", tmp_path / "d", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    near, mapped = told["summary"]
    assert mapped["seeds"] == 2 and mapped["roc_auc"]["mean"] <= 1.0 and near["pixel_roc_auc"] is None
    assert (tmp_path / "o" / f"heat_maps-{plain.name}.md").exists()
    assert (tmp_path / "o" / f"heat_maps-{plain.name}-{MAPPING}.webp").exists()
    kept = json.loads((tmp_path / "o" / f"heat_maps-{plain.name}.json").read_text())
    assert kept["summary"] == told["summary"]
