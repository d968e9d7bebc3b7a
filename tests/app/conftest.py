"""One embedder for all tests of a run: it never changes, and loading it takes longer than most tests."""

from functools import cache
from pathlib import Path

import pytest

import app.embedders
from models.backbones.embedder import Embedder
from models.backbones.loader import EmbeddingSpec, load_embedder


@cache
def kept(spec: EmbeddingSpec, weights_folder: Path, threads: int) -> Embedder:
    return load_embedder(spec, weights_folder=weights_folder, threads=threads)


@pytest.fixture(autouse=True)
def embedders_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(spec: EmbeddingSpec, *, weights_folder: Path, threads: int) -> Embedder:
        # Only weights that need no file are the same in every folder.
        folder = Path() if spec.weights in ("stand-in", "embedded") else weights_folder
        return kept(spec, folder, threads)

    monkeypatch.setattr(app.embedders, "load_embedder", load)
