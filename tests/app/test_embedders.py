"""Networks are loaded once each, and one that takes long to load holds up nobody who needs another."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

import app.embedders
from app.embedders import EMBEDDERS_KEPT, Embedders
from app.settings import Settings
from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder, EmbeddingSpec
from models.backbones.loader import load_embedder


@pytest.fixture
def embedders(settings: Settings) -> Iterator[Embedders]:
    with closing(Embedders(settings, 1)) as made:
        yield made


def spec(side: int) -> EmbeddingSpec:
    return EmbeddingSpec(weights="stand-in", image_size=side)


def test_one_that_is_slow_to_load_holds_up_no_other_and_is_loaded_once(
    embedders: Embedders, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, loads = Event(), Event(), []

    def load(asked: EmbeddingSpec, *, weights_folder: Path, threads: int, choice: EngineChoice) -> Embedder:
        loads.append(asked)
        if asked == spec(48):
            began.set()
            assert go_on.wait(60)
        return load_embedder(asked, weights_folder=weights_folder, threads=threads, choice=choice)

    monkeypatch.setattr(app.embedders, "load_embedder", load)
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(embedders.get, spec(48)) for _ in range(2)]
        assert began.wait(60)
        quick = threads.submit(embedders.get, spec(32)).result(timeout=60)
        assert quick.embedder.identity.preprocessing.image_size == 32 and not any(one.done() for one in slow)
        go_on.set()
        first, second = (one.result(timeout=60) for one in slow)
    assert first is second is embedders.get(spec(48))
    assert loads.count(spec(48)) == 1


def test_one_that_cannot_be_loaded_can_be_tried_again(embedders: Embedders, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Embedder:
        raise OSError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(app.embedders, "load_embedder", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is away"):
                embedders.get(spec(32))
    assert embedders.get(spec(32)) is embedders.get(spec(32))


def test_the_least_recently_used_of_too_many_is_loaded_anew(embedders: Embedders) -> None:
    sides = range(32, 32 + EMBEDDERS_KEPT)
    first, second, *_ = [embedders.get(spec(side)) for side in sides]
    assert embedders.get(spec(32)) is first  # used again, so that the second is the oldest now
    embedders.get(spec(31 + 2 * EMBEDDERS_KEPT))
    assert embedders.get(spec(32)) is first
    assert embedders.get(spec(33)) is not second
