"""Embeddings of crops: as many as asked, real ones, and queries of images that are not stored."""

import numpy as np
import pytest

from app.embedders import Embedders
from app.settings import Settings
from benchmarks.crops import write_crops
from benchmarks.errors import BenchmarkRefused
from benchmarks.made_folders import write_digits
from benchmarks.search_speed import QUERIES
from models.backbones.embedder import EmbeddingSpec


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    made = Embedders(Settings(data=tmp_path_factory.mktemp("data")), 1)
    yield made
    made.close()


def test_crops_of_some_images_are_embedded(embedders, tmp_path):
    folder = tmp_path / "digits"
    write_digits(folder)
    files = sorted(folder.rglob("*.png"))[:3]
    advanced = []
    out = tmp_path / "crops.npy"
    specification = EmbeddingSpec(weights="stand-in", image_size=32)
    write_crops(files, 20, embedders, specification, out, seed=1, advance=advanced.append)
    vectors = np.load(out)
    assert vectors.shape == (20 + QUERIES, 512)
    assert vectors.dtype == np.float32
    assert sum(advanced) == len(vectors)
    assert len(np.unique(vectors[:20], axis=0)) > 15
    assert np.isfinite(vectors).all()
    assert (np.linalg.norm(vectors, axis=1) > 0).all()
    assert [one.name for one in tmp_path.glob("crops*")] == ["crops.npy"]
    write_crops(files, 20, embedders, specification, tmp_path / "again.npy", seed=1, advance=advanced.append)
    assert np.array_equal(np.load(tmp_path / "again.npy"), vectors)


def test_one_image_is_refused(embedders, tmp_path):
    with pytest.raises(BenchmarkRefused, match="at least 2 images"):
        write_crops(
            [], 20, embedders, EmbeddingSpec(weights="stand-in"), tmp_path / "c.npy", seed=0, advance=lambda _: None
        )
