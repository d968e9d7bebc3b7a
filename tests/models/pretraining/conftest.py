"""Tiny image folders, their packed set, and a teacher's answers to it."""

from pathlib import Path

import pytest

from models.pretraining import ImageFolder, TrainingSet, make_targets, open_training_set, pack_images
from tests.models.pretraining.drawing import COLOURS, LinearTeacher, draw_class


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    for seed, (name, colour) in enumerate(COLOURS.items()):
        draw_class(folder / name, colour, 8, seed=seed)
    return folder


@pytest.fixture(scope="session")
def packed_folder(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack_images([ImageFolder(colour_folder, "colours", "drawn here")], folder, side=20)
    return folder


@pytest.fixture
def packed(packed_folder: Path) -> TrainingSet:
    return open_training_set(packed_folder)


@pytest.fixture(scope="session")
def targets_folder(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("targets")
    make_targets(open_training_set(packed_folder), LinearTeacher(), folder, width=5, batch=7)
    return folder
