"""Runs commands in this process, on a folder of the test's own and a quick embedding."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.cli.main import main
from tests.conftest import png


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Oddity = Callable[..., Ran]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings from the environment: small network input, one thread."""
    for name, value in (("WEIGHTS", "stand-in"), ("IMAGE_SIZE", "32"), ("THREADS", "1")):
        monkeypatch.setenv(f"ODDITY_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def oddity(quick: None, capsys: pytest.CaptureFixture[str]) -> Oddity:
    """Runs `oddity` with these arguments."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), out, err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders of six images each, one image file that is broken, and a file that is no image."""
    for kind in ("left", "right"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(6):
            path = tmp_path / "images" / kind / f"{number}.png"
            path.write_bytes(png(number + 100 * (kind == "right")))
    (tmp_path / "images" / "right" / "broken.png").write_bytes(b"no image")
    (tmp_path / "images" / "notes.txt").write_text("no image either")
    return tmp_path / "images"
