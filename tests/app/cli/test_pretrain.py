"""`oddity pretrain` from image folders to weights that a collection can use."""

import json
import signal
from pathlib import Path

import pytest

from app.cli import pretrain as command
from models.backbones.network import tensor_shapes
from models.backbones.quantisation import has_ranges, range_names
from tests.app.cli.conftest import Oddity
from tests.models.pretraining.drawing import COLOURS, draw_class

TINY = ("--set", "batch=8", "--set", "sides=[[1.0, 16]]", "--set", "threads=1", "--set", "log_every_steps=1")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two parts of four classes, with a file that is no image."""
    for part in ("train", "test"):
        for seed, (name, colour) in enumerate(COLOURS.items()):
            draw_class(tmp_path / "photos" / part / name, colour, 6, seed=seed + 10 * (part == "test"))
    (tmp_path / "photos" / "train" / "red" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_from_folders_to_weights_with_a_card(
    oddity: Oddity, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, run, weights = tmp_path / "set", tmp_path / "run", tmp_path / "d" / "weights" / "mine.safetensors"
    ran = oddity("pretrain", "pack", photos / "train", "--terms", "drawn here", "--side", 20, "--out", packed)
    assert ran.code == 0 and "24 images of 4 classes; 1 could not be decoded" in ran.err

    # Ctrl-C before the second step: a checkpoint is written, and the same command goes on from it.
    ticking = command._ticking

    def interrupting(*arguments):
        tick = ticking(*arguments)
        seen = 0

        def ticked() -> bool:
            nonlocal seen
            seen += 1
            if seen == 2:
                signal.raise_signal(signal.SIGINT)
            return tick()

        return ticked

    asked = ("pretrain", "run", packed, run, "--steps", 3, "--seed", 5, *TINY, "--json")
    with monkeypatch.context() as patch:
        patch.setattr(command, "_ticking", interrupting)
        ran = oddity(*asked)
    assert ran.code == 130 and json.loads(ran.out)["steps"] == 1
    ran = oddity(*asked)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) | {"seconds": 0} == {
        "run": str(run), "finished": True, "steps": 3, "images": 24, "seconds": 0
    }  # fmt: skip
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {"step", "label", "images_per_s"} <= set(log[0]) and any(one.get("resumed_at") == 1 for one in log)
    other = oddity("pretrain", "run", packed, run, "--steps", 3, "--seed", 6, *TINY)
    assert other.code == 1 and "same recipe" in other.err

    told = ("--terms", "our own", "--weakness", "four colours", "--image-size", 32)
    ran = oddity("pretrain", "export", run, "--out", weights, *told)
    assert ran.code == 0, ran.err
    (card,) = json.loads((weights.parent / "card.json").read_text())["weights"]
    assert (card["data"], card["images_seen"]) == ([{"name": "train", "terms": "drawn here", "images": 24}], 24)
    assert card["recipe"]["seed"] == 5 and card["weaknesses"] == ["four colours"] and card["commit"]

    places = ("--bank", photos / "train", "--queries", photos / "test", "--few-shot", photos / "test")
    few = ("--ways", 2, "--asked", 1, "--episodes", 2)
    ran = oddity("pretrain", "evaluate", weights, *places, *few, "--json")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)
    assert set(figures) == {"photos_one_vs_rest_auc_32px", "test_2way_1shot_32px", "test_2way_5shot_32px"}
    assert all(0 <= value <= 1 for value in figures.values())
    (card,) = json.loads((weights.parent / "card.json").read_text())["weights"]
    assert card["figures"] == figures

    monkeypatch.setattr("models.backbones.ranges.IMAGES", 12)
    ran = oddity("pretrain", "ranges", weights, "--json")
    assert ran.code == 0, ran.err
    (card,) = json.loads((weights.parent / "card.json").read_text())["weights"]
    assert card["int8"]["ranges"] == json.loads(ran.out) and card["figures"] == figures
    assert has_ranges(range_names(tensor_shapes("resnet18")), card["int8"]["ranges"])
    ran = oddity("pretrain", "ranges", run / "checkpoint.pt")
    assert ran.code == 2 and "There is no card of resnet18" in ran.err

    made = oddity("collections", "put", "c", "-s", "weights=file:mine.safetensors", "--data", tmp_path / "d", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["weights"] == "file:mine.safetensors"


def test_what_is_wrong_is_said(oddity: Oddity, photos: Path, tmp_path: Path) -> None:
    for arguments, code, sentence in (
        (("run", tmp_path / "s", tmp_path / "r"), 2, "--steps or --hours"),
        (("run", tmp_path / "s", tmp_path / "r", "--steps", 1), 1, "must hold images.npy"),
        (("run", tmp_path / "s", tmp_path / "r", "--steps", 1, "--set", "nonsense=1"), 2, "`nonsense` of the recipe"),
        (
            ("run", tmp_path / "s", tmp_path / "r", "--steps", 1, "--set", "consistency_weight=1"),
            2,
            "`consistency_weight` of the recipe: must be 0 where `copies` is 1",
        ),
        (("run", tmp_path / "s", tmp_path / "r", "--steps", 1, "--backbone", "vgg"), 2, "must be one of resnet18"),
        (("export", tmp_path, "-o", tmp_path / "w", "--terms", "t", "--weakness", "w"), 1, "must hold a whole"),
        (("pack", photos / "train", "--terms", "a", "--terms", "b", "-o", tmp_path / "s"), 2, "once for each"),
        (("evaluate", photos / "train" / "red" / "000.png"), 2, "--bank with --queries"),
        (("evaluate", photos / "train" / "red" / "000.png", "--few-shot", photos), 2, "no card of resnet18"),
    ):
        ran = oddity("pretrain", *arguments)
        assert ran.code == code and sentence in " ".join(ran.err.split()), ran.err
