"""The image, built once by a container engine for all these tests: see `make test-containers`."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine
from tests.rules.source_tree import ROOT

FIGURES = ROOT / ".artefacts" / "containers.json"

Note = Callable[[str, float], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder needs a container engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Docker, or what the variable ENGINE names."""
    command = shlex.split(os.environ.get("ENGINE") or "docker")
    assert shutil.which(command[0]), f"These tests need a container engine; there is no {command[0]}. Set ENGINE."
    return Engine(command)


@pytest.fixture(scope="session")
def compose(engine: Engine) -> Engine:
    """`docker compose`, or what the variable COMPOSE names, such as podman-compose."""
    named = os.environ.get("COMPOSE")
    return Engine(shlex.split(named) if named else [*engine.command, "compose"])


@pytest.fixture(scope="session")
def note() -> Iterator[Note]:
    """Takes figures; they are left in .artefacts/containers.json."""
    figures: dict[str, float] = {}
    yield figures.__setitem__
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n")


@pytest.fixture(scope="session")
def image(engine: Engine, note: Note) -> str:
    """The image's name, once it is built from this tree. BUILD_OPTIONS: more for the engine, such as --build-arg."""
    options = shlex.split(os.environ.get("BUILD_OPTIONS", ""))
    if engine.is_podman:
        options += ["--format", "docker"]  # the other format has no place for a health check
    begun = time.monotonic()
    engine("build", *options, "-t", "oddity", ".", cwd=ROOT)
    note("build_s", round(time.monotonic() - begun, 1))
    note("image_bytes", int(engine("image", "inspect", "--format", "{{.Size}}", "oddity")))
    return "oddity"
