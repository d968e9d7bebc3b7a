"""What `oddity serve` does with its own process."""

import gc
import threading

import pytest

import app.embedders
from app.cli.serve import announced_server
from app.settings import Settings
from models.backbones.embedder import Embedder
from tests.app.cli.serving import PATIENCE_S, started


def is_searched(*made: object) -> bool:
    """Whether Python looks for garbage among any of these."""
    ids = {id(one) for one in made}
    return any(id(one) in ids for one in gc.get_objects())


def test_what_a_start_makes_is_not_searched_for_garbage_while_requests_wait(settings: Settings) -> None:
    server = announced_server(settings, "127.0.0.1", 0)
    served = server.config.app
    assert not is_searched(served, *served.routes)
    with started(server):
        assert not is_searched(served.state.core, served.state.slots)


def test_the_network_of_new_collections_is_loaded_before_anybody_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = app.embedders.load_embedder, threading.Event()

    def noted(*given: object, **named: object) -> Embedder:
        found = load(*given, **named)
        loaded.set()
        return found

    monkeypatch.setattr(app.embedders, "load_embedder", noted)
    with started(announced_server(settings, "127.0.0.1", 0)):
        assert loaded.wait(PATIENCE_S)
