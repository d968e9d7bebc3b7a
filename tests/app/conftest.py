"""One embedder for all tests of a run: it never changes, and loading it takes longer than most tests."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import app.embedders
from app.main import create_app
from app.settings import Settings
from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder
from models.backbones.loader import EmbeddingSpec, load_embedder

Serve = Callable[..., AbstractContextManager[TestClient]]


@cache
def kept(spec: EmbeddingSpec, threads: int, choice: EngineChoice) -> Embedder:
    return load_embedder(spec, weights_folder=Path(), threads=threads, choice=choice)


@pytest.fixture(autouse=True)
def embedders_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each test anew: modules run in any order, and those of other folders are to load what lies on the disk."""

    def load(spec: EmbeddingSpec, *, weights_folder: Path, threads: int, choice: EngineChoice) -> Embedder:
        # Only weights that need no file are the same every time.
        if spec.weights in ("stand-in", "embedded"):
            return kept(spec, threads, replace(choice, cache_folder=None))
        return load_embedder(spec, weights_folder=weights_folder, threads=threads, choice=choice)

    monkeypatch.setattr(app.embedders, "load_embedder", load)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One thread: two that share a busy core wait for each other longer than they compute."""
    return settings.model_copy(update={"threads": 1})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One application for the tests of a module: for those that look, or are refused, or use their own names."""
    settings = Settings(data=tmp_path_factory.mktemp("shared"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def serve(settings: Settings) -> Serve:
    """Starts the application on this test's folder, with settings changed as named; again and again if asked."""

    @contextmanager
    def start(**changes: object) -> Iterator[TestClient]:
        changed = settings.model_copy(update=changes)
        with TestClient(create_app(changed), raise_server_exceptions=False) as client:
            yield client

    return start
