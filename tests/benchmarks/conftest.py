"""Small folders of images, and an embedder that is loaded once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedders import Embedders
from app.settings import Settings
from benchmarks.made_folders import write_digits, write_textures
from models.backbones.embedder import EmbeddingSpec
from tests.app.conftest import embedders_are_kept

__all__ = ["embedders_are_kept"]  # a fixture of every test

SPEC = EmbeddingSpec(weights="stand-in", image_size=32)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten digits in the classes layout."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textures in the inspection layout."""
    return write_textures(tmp_path_factory.mktemp("textures"), 3)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of vectors for all tests."""
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture
def embedders(tmp_path: Path) -> Iterator[Embedders]:
    """The service's embedders, one thread."""
    opened = Embedders(Settings(data=tmp_path / "data", weights="stand-in", image_size=32, threads=1), 1)
    yield opened
    opened.close()
