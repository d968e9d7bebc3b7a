"""`oddity classes` and `oddity classify` say what the service says."""

import json
from pathlib import Path

import pytest

from tests.app.cli.conftest import Oddity
from tests.app.test_classes import NAMES, drawn


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """Five images of each of three kinds in a folder of its own."""
    for kind, name in enumerate(NAMES):
        (tmp_path / "kinds" / name).mkdir(parents=True)
        for seed in range(5):
            (tmp_path / "kinds" / name / f"{seed}.png").write_bytes(drawn(kind, seed))
    return tmp_path / "kinds"


@pytest.fixture
def asked(tmp_path: Path) -> list[Path]:
    """One new image of each kind, and one of none."""
    (tmp_path / "asked").mkdir()
    paths = [tmp_path / "asked" / f"{kind}.png" for kind in (0, 1, 2, 4)]
    for path in paths:
        path.write_bytes(drawn(int(path.stem), 99))
    return paths


def test_classes_from_folders_are_told_apart(oddity: Oddity, kinds: Path, asked: list[Path], tmp_path: Path) -> None:
    where = ("-c", "c", "--data", tmp_path / "d")
    for name in NAMES:
        ran = oddity("classes", "put", name, kinds / name, *where)
        assert ran.code == 0, ran.err
        assert "5 images taken, 0 refused; the class has 5" in ran.err
    listed = json.loads(oddity("classes", "list", *where, "--json").out)
    assert [(one["label"], one["count"]) for one in listed["classes"]] == [(name, 5) for name in sorted(NAMES)]
    assert "checks" in oddity("classes", "list", *where).out
    ran = oddity("classify", *asked, *where, "--json", "--false-alarm-rate", 0.07, "--top", 2)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["results"]
    assert [one["label"] for one in found] == [*NAMES, None]
    assert [one["path"] for one in found] == [str(path) for path in asked]
    assert all(len(one["probabilities"]) == 2 for one in found)
    shown = oddity("classify", asked[0].parent, *where, "--false-alarm-rate", 0.07).out
    assert "disc" in shown and "(unknown)" in shown
    assert oddity("classes", "delete", "disc", *where, "--images", "delete").code == 0
    listed = json.loads(oddity("classes", "list", *where, "--json").out)
    assert [one["label"] for one in listed["classes"]] == ["bars", "checks"]


def test_a_folder_of_classes_can_be_ingested(oddity: Oddity, kinds: Path, tmp_path: Path) -> None:
    where = ("-c", "c", "--data", tmp_path / "d")
    ran = oddity("ingest", kinds, *where, "--role", "example", "--label-from-folder")
    assert ran.code == 0, ran.err
    listed = json.loads(oddity("classes", "list", *where, "--json").out)
    assert [(one["label"], one["count"]) for one in listed["classes"]] == [(name, 5) for name in sorted(NAMES)]


def test_what_goes_wrong_is_a_sentence(oddity: Oddity, kinds: Path, asked: list[Path], tmp_path: Path) -> None:
    where = ("-c", "c", "--data", tmp_path / "d")
    (kinds / "disc" / "broken.png").write_bytes(b"no image")
    ran = oddity("classes", "put", "disc", kinds / "disc", *where)
    assert ran.code == 1 and "5 images taken, 1 refused" in ran.err and "Traceback" not in ran.err
    again = oddity("classes", "put", "disc", kinds / "disc" / "0.png", *where, "--replace", "--json")
    assert again.code == 0 and json.loads(again.out)["count"] == 1
    mixed = oddity("classify", asked[0], kinds / "disc" / "broken.png", *where)
    assert mixed.code == 1 and "disc" in mixed.out
    nothing = oddity("classify", asked[0], "-c", "other", "--data", tmp_path / "d")
    assert nothing.code == 1 and "no collection" in nothing.err
    unknown = oddity("classes", "delete", "zebra", *where)
    assert unknown.code == 1 and "no class `zebra`" in unknown.err
