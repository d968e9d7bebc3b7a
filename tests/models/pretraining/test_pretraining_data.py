"""Packing: what is in, what is left out, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import ParameterInvalid
from models.pretraining import NEVER_TRAINED_ON, ImageFolder, open_training_set, pack_images
from models.pretraining.errors import TrainingSetInvalid
from tests.models.pretraining.drawing import COLOURS, draw_class

FORBIDDEN = min(NEVER_TRAINED_ON)


def source(path: Path, name: str = "drawn") -> ImageFolder:
    return ImageFolder(path, name, "drawn here")


def test_every_image_is_packed_once_with_its_class(colour_folder: Path, tmp_path: Path) -> None:
    packed = pack_images([source(colour_folder)], tmp_path, side=20)
    assert packed.classes == tuple(COLOURS)
    assert packed.images.shape == (32, 20, 20, 3)
    assert np.bincount(packed.labels).tolist() == [8, 8, 8, 8]
    means = packed.images.reshape(4, 8, -1, 3).mean(axis=(1, 2))
    assert np.abs(means - np.array(list(COLOURS.values()))).max() < 6


def test_the_centre_is_kept_not_the_whole_squashed(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "in" / "a" / "x.png")
    packed = pack_images([source(tmp_path / "in")], tmp_path / "out", side=16)
    assert packed.images[0].min() > 240


def test_classes_that_figures_are_measured_on_are_left_out_and_recorded(tmp_path: Path) -> None:
    draw_class(tmp_path / "in" / FORBIDDEN, (9, 9, 9), 3, seed=0)
    draw_class(tmp_path / "in" / "n00000001", (200, 9, 9), 2, seed=1)
    packed = pack_images([source(tmp_path / "in")], tmp_path / "out", side=16)
    assert packed.classes == ("n00000001",)
    assert len(packed) == 2 and packed.images[..., 0].min() > 100  # none of the dark images
    assert packed.sources[0].excluded == (FORBIDDEN,)


def test_the_twenty_test_classes_are_all_listed() -> None:
    assert len(NEVER_TRAINED_ON) == 20
    assert {"n02099601", "n02129165", "n03544143", "n04146614", "n04149813"} < NEVER_TRAINED_ON


def test_nobody_can_shorten_the_exclusion_list(colour_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterInvalid, match=FORBIDDEN):
        pack_images([source(colour_folder)], tmp_path, side=20, excluded=NEVER_TRAINED_ON - {FORBIDDEN})


def test_the_exclusion_list_can_be_lengthened(colour_folder: Path, tmp_path: Path) -> None:
    packed = pack_images([source(colour_folder)], tmp_path, side=20, excluded=NEVER_TRAINED_ON | {"red"})
    assert packed.classes == ("blue", "green", "yellow")


def test_of_each_class_the_first_images_by_path_are_packed(tmp_path: Path) -> None:
    for name, levels in (("a", (10, 20, 30)), ("b", (40,))):
        (tmp_path / "in" / name).mkdir(parents=True)
        for place, level in enumerate(levels):
            Image.new("RGB", (20, 20), (level,) * 3).save(tmp_path / "in" / name / f"{place}.png")
    packed = pack_images([source(tmp_path / "in")], tmp_path / "out", side=16, per_class=2)
    assert packed.images[:, 0, 0, 0].tolist() == [10, 20, 40] and packed.labels.tolist() == [0, 0, 1]
    with pytest.raises(ParameterInvalid, match="per_class"):
        pack_images([source(tmp_path / "in")], tmp_path / "out", side=16, per_class=0)


def test_a_set_that_holds_such_a_class_is_not_opened(packed_folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(packed_folder, tmp_path / "copy"))
    open_training_set(copied)  # as it is, it opens
    record = json.loads((copied / "record.json").read_text())
    record["classes"][2] = FORBIDDEN
    (copied / "record.json").write_text(json.dumps(record))
    with pytest.raises(TrainingSetInvalid, match=FORBIDDEN):
        open_training_set(copied)


def test_sources_share_classes_by_name(tmp_path: Path) -> None:
    for place, classes in (("one", ("a", "b")), ("two", ("b", "c"))):
        for seed, name in enumerate(classes):
            draw_class(tmp_path / place / name / "images", (90, 90, 90), 2, seed=seed)
    packed = pack_images([source(tmp_path / "one", "one"), source(tmp_path / "two", "two")], tmp_path / "out", side=16)
    assert packed.classes == ("a", "b", "c")
    assert packed.labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert [record.images for record in packed.sources] == [4, 4]


def test_images_that_do_not_decode_are_counted_and_left_out(tmp_path: Path) -> None:
    draw_class(tmp_path / "in" / "a", (200, 9, 9), 3, seed=0)
    whole = (tmp_path / "in" / "a" / "001.png").read_bytes()
    (tmp_path / "in" / "a" / "001.png").write_bytes(whole[:60])
    packed = pack_images([source(tmp_path / "in")], tmp_path / "out", side=16)
    assert len(packed) == 2 and packed.images.shape[0] == 2
    assert packed.images[..., 0].min() > 100  # no empty row was left behind
    assert packed.sources[0].unreadable == 1


def test_the_same_files_give_the_same_digest_and_other_pixels_another(colour_folder: Path, tmp_path: Path) -> None:
    first = pack_images([source(colour_folder)], tmp_path / "1", side=20)
    again = pack_images([source(colour_folder)], tmp_path / "2", side=20)
    smaller = pack_images([source(colour_folder)], tmp_path / "3", side=18)
    assert first.digest == again.digest != smaller.digest


@pytest.mark.parametrize("lost", ["images.npy", "labels.npy", "record.json"])
def test_a_set_with_a_file_lost_is_refused(packed_folder: Path, tmp_path: Path, lost: str) -> None:
    copied = Path(shutil.copytree(packed_folder, tmp_path / "copy"))
    (copied / lost).unlink()
    with pytest.raises(TrainingSetInvalid, match="must hold"):
        open_training_set(copied)


def test_pixels_of_another_number_than_recorded_are_refused(packed_folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(packed_folder, tmp_path / "copy"))
    np.save(copied / "images.npy", np.zeros((31, 20, 20, 3), np.uint8))
    with pytest.raises(TrainingSetInvalid, match="as recorded"):
        open_training_set(copied)


def test_wrong_sources_and_sides_are_refused(colour_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingSetInvalid, match="folder for each class"):
        pack_images([source(tmp_path / "nowhere")], tmp_path / "out", side=16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingSetInvalid, match="got none"):
        pack_images([source(tmp_path / "empty")], tmp_path / "out", side=16)
    with pytest.raises(ParameterInvalid, match="at least 16"):
        pack_images([source(colour_folder)], tmp_path / "out", side=15)
