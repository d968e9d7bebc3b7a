"""`oddity demo`: the same every time, and honest about its weights."""

import json
from pathlib import Path

import pytest

from app.cli import demo
from app.cli.client import open_client
from app.cli.demo_images import digit_images, texture_images
from tests.app.cli.conftest import Oddity
from tests.app.cli.serving import serving


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer textures: drawing and embedding them is most of the time."""
    monkeypatch.setattr(demo, "TEXTURES", 66)
    monkeypatch.setattr(demo, "TEXTURES_HELD_OUT", 9)
    monkeypatch.setattr(demo, "DEFECTIVE", 9)


def test_a_second_run_changes_nothing(oddity: Oddity, small: None, tmp_path: Path) -> None:
    first = oddity("demo", "--data", tmp_path / "d", "--json")
    assert first.code == 0
    report = json.loads(first.out)
    assert report["demo-digits"]["bank"] == 148
    assert report["demo-digits"]["strangers"]["alarms"] > report["demo-digits"]["held_out"]["alarms"]
    with open_client(None, tmp_path / "d") as client:
        before = [client.collection(name).get().revision for name in report]
    second = oddity("demo", "--data", tmp_path / "d")
    assert second.code == 0
    with open_client(None, tmp_path / "d") as client:
        assert [client.collection(name).get().revision for name in report] == before
    assert "untrained stand-in" in second.out
    written = list((tmp_path / "d" / "demo").iterdir())
    assert len(written) == 4
    for path in written:
        assert str(path) in second.err  # each is named in a command to try


def test_a_server_of_the_settings_is_the_one_to_try_next(
    oddity: Oddity, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODDITY_DATA", str(tmp_path / "d"))
    with serving(tmp_path / "s") as url:
        monkeypatch.setenv("ODDITY_SERVER", url)
        ran = oddity("demo")
    assert ran.code == 0, ran.err
    assert ran.err.count(f"'{url}/v1/collections/") == 3
    assert "oddity serve" not in ran.err and ":8000" not in ran.err


def test_images_depend_on_the_seed_alone() -> None:
    assert texture_images(3, 3, 5) == texture_images(3, 3, 5)
    assert texture_images(3, 3, 5) != texture_images(3, 3, 6)
    assert len({one.data for one in texture_images(3, 3, 5)}) == 6


def test_scenes_never_score_what_they_store() -> None:
    for scene in (demo.digits_scene(), demo.textures_scene()):
        stored = {one.data for one in scene.bank}
        assert not stored & {one.data for one in (*scene.belonging, *scene.strangers)}
        assert not {one.kind for one in scene.bank} & {one.kind for one in scene.strangers}


def test_digits_are_the_scans_of_scikit_learn() -> None:
    assert len(digit_images()) == 1797
