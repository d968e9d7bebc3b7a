"""Gradients through the network are those of what it computes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder
from models.backbones.gradients import Read, pixel_gradients
from models.backbones.loader import EmbeddingSpec, load_embedder
from models.backbones.torch_engine import TorchEngine
from models.contract import Slopes

SIDE = 32


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    spec = EmbeddingSpec(weights="stand-in", stages=(2, 4), image_size=SIDE)
    return load_embedder(spec, weights_folder=Path(), threads=1, choice=EngineChoice("torch", "float32"))


@pytest.mark.parametrize("what", ["vectors", "maps", "pixels", "all"])
def test_a_step_along_the_gradient_changes_the_number_as_it_says(embedder: Embedder, what: str) -> None:
    engine = embedder.engine
    assert isinstance(engine, TorchEngine)
    random = np.random.default_rng(1)
    images = random.normal(size=(18, 3, SIDE, SIDE)).astype(np.float32)  # more than one batch
    of_vectors = random.normal(size=embedder.width)
    of_maps = random.normal(size=embedder.maps(embedder.as_prepared(images[:1]), [3])[3].shape[1:])
    of_pixels = random.normal(size=images.shape[1:])
    asked = {"vectors", "maps", "pixels"} if what == "all" else {what}

    def number(pixels: np.ndarray) -> np.ndarray:
        prepared = embedder.as_prepared(pixels)
        parts = {
            "vectors": embedder.embed(prepared).astype(np.float64) @ of_vectors,
            "maps": (embedder.maps(prepared, [3])[3].astype(np.float64) * of_maps).sum(axis=(1, 2, 3)),
            "pixels": (pixels.astype(np.float64) * of_pixels).sum(axis=(1, 2, 3)),
        }
        return sum(parts[one] for one in asked)

    def slopes(pixels: np.ndarray, read: Read) -> Slopes:
        vectors, maps = read
        assert vectors.shape == (len(pixels), embedder.width) and isinstance(maps, Mapping)
        assert np.allclose(vectors, embedder.embed(embedder.as_prepared(pixels)), rtol=1e-3, atol=1e-4)
        many = len(pixels)
        return Slopes(
            vectors=np.tile(of_vectors, (many, 1)) if "vectors" in asked else None,
            maps={3: np.tile(of_maps, (many, 1, 1, 1))} if "maps" in asked else {},
            pixels=np.tile(of_pixels, (many, 1, 1, 1)) if "pixels" in asked else None,
        )

    found = pixel_gradients(engine, images, slopes).astype(np.float64)
    assert found.shape == images.shape
    for place in (0, 17):
        gradient = found[place]
        step = 0.02 / np.linalg.norm(gradient)
        forth, back = number(
            np.stack([images[place] + step * gradient, images[place] - step * gradient]).astype(np.float32)
        )
        told = np.linalg.norm(gradient) ** 2
        assert (forth - back) / (2 * step) == pytest.approx(told, rel=0.05)
        other = found[17 - place]  # negative control: another image's gradient promises another change
        if what != "pixels":
            assert (gradient * other).sum() < 0.9 * told
