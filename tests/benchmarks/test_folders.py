"""The two layouts, and the cases they give."""

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import Layout, cases, read_layout
from tests.conftest import png


def make(folder: Path, *kinds: str) -> Path:
    for number, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True)
        for place in range(3):
            (folder / kind / f"{place}.png").write_bytes(png(10 * number + place, side=8))
    return folder


def classes(folder: Path) -> Layout:
    return read_layout(make(folder, *(f"{part}/{kind}" for part in ("train", "test") for kind in "abcd")))


def test_each_class_is_normal_in_turn(tmp_path: Path) -> None:
    layout = classes(tmp_path)
    assert layout.layout == "classes"
    assert [sorted(case.normal) for case in cases(layout)] == [["a"], ["b"], ["c"], ["d"]]


def test_several_classes_are_normal_together(tmp_path: Path) -> None:
    layout = classes(tmp_path)
    assert [case.name for case in cases(layout, together=3)] == ["a+b+c", "b+c+d", "a+c+d", "a+b+d"]
    assert [case.name for case in cases(layout, normal=["d", "b"])] == ["b+d"]


def test_good_against_defects(tmp_path: Path) -> None:
    make(tmp_path, "train/good", "test/good", "test/scratch", "test/hole", "ground_truth/scratch")
    layout = read_layout(tmp_path)
    assert layout.layout == "inspection"
    assert [case.normal for case in cases(layout)] == [frozenset({"good"})]
    assert sorted(layout.test) == ["good", "hole", "scratch"]


def test_the_limit_keeps_the_first_of_each_kind(tmp_path: Path) -> None:
    classes(tmp_path)
    layout = read_layout(tmp_path, 2)
    assert [path.name for path in layout.train["a"]] == ["0.png", "1.png"]
    assert len(layout.files()) == 16


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (["train/a", "train/b"], "must hold train/<kind>/"),
        (["train/good", "test/good"], "at least one defect"),
        (["train/good", "test/hole"], "must hold good/"),
        (["train/a", "train/b", "test/a", "test/c"], "every class of train"),
        (["train/a", "test/a"], "at least two classes"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, kinds: list[str], sentence: str) -> None:
    make(tmp_path, *kinds)
    with pytest.raises(BenchmarkRefused, match=sentence):
        read_layout(tmp_path)


def test_impossible_cases_are_refused(tmp_path: Path) -> None:
    layout = classes(tmp_path)
    for asked, sentence in (
        ({"together": 4}, "must be strange"),
        ({"together": 5}, "from 1 to 4"),
        ({"normal": ["x"]}, "got x"),
    ):
        with pytest.raises(BenchmarkRefused, match=sentence):
            cases(layout, **asked)  # type: ignore[arg-type]
