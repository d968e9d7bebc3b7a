"""Shared fixtures: seeded images, settings on a temporary folder, a client on the real application."""

import gc
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.db.engine import Database
from app.main import create_app
from app.settings import Settings
from models.catalog import installed
from tests.allowed_skips import ALLOWED_SKIPS
from tests.third_party import PACKAGE, install

Draw = Callable[..., bytes]

# Jobs run in threads of the application under test: a worker process takes seconds to start. The tests that are about
# that process ask for it.
os.environ.setdefault("ODDITY_JOBS", "thread")
# Images too are decoded in threads there: to start a process for it costs each application a fifth of a second.
os.environ.setdefault("ODDITY_DECODING", "threads")

# Files whose tests start servers or load many networks: the longest, though they hold few tests.
LONGEST = (
    "tests/faults/",
    "tests/record/",
    "tests/app/test_server_processes.py",
    "tests/app/test_ending.py",
    "tests/app/test_worker_process.py",
    "tests/models/test_backbones.py",
    "tests/models/test_engines.py",
    "tests/models/test_quantisation.py",
)


@pytest.hookimpl(trylast=True)  # after the order was drawn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def png(seed: int, side: int = 32, kind: str = "noise") -> bytes:
    """A seeded image: `noise` around a seeded colour, or `stripes` of it."""
    random = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), random.integers(60, 200, 3), np.float64)
    if kind == "stripes":
        pixels[:, :: 2 + seed % 3] *= 0.3
    pixels += random.normal(0, 12, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def migrated_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite record that has its tables: to copy it takes a hundredth of the time that making them takes."""
    path = tmp_path_factory.mktemp("migrated") / "oddity.db"
    record = Database(f"sqlite:///{path}")
    record.migrate()
    record.close()
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated_record: Path) -> Settings:
    """Settings on a folder of this test's own, with a quick embedding."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copyfile(migrated_record, data / "oddity.db")
    return Settings(data=data, weights="stand-in", image_size=32, threads=2)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client on the real application; server errors come as answers, as they would over the wire."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def draw() -> Draw:
    """Draws seeded PNG bytes."""
    return png


@pytest.fixture(scope="module")
def outside_methods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Methods of a third party, installed for the tests of a module; the folder they lie in."""
    with pytest.MonkeyPatch.context() as patch:
        folder = install(tmp_path_factory.mktemp("installed"))
        patch.syspath_prepend(folder)
        installed.cache_clear()
        yield folder
    installed.cache_clear()
    for name in [one for one in sys.modules if one.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def add(client: TestClient, collection: str, images: dict[str, bytes], **parameters: object) -> dict:
    """POST images under the given ids; the collection is made if need be."""
    client.put(f"/v1/collections/{collection}").raise_for_status()
    answer = client.post(
        f"/v1/collections/{collection}/images",
        files=[("files", (f"{name}.png", data)) for name, data in images.items()],
        data={"items": json.dumps([{"id": name} for name in images]), **parameters},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def pytest_collection_finish() -> None:
    """What was imported stays until the end, and is not searched for garbage over and over."""
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test proves nothing: unless it is on the list with a reason, the run fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    unlisted = sorted({report.nodeid for report in reporter.stats.get("skipped", ())} - set(ALLOWED_SKIPS))
    if unlisted and session.exitstatus == 0:
        reporter.write_line(f"skipped without being listed in tests/allowed_skips.py: {', '.join(unlisted)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
