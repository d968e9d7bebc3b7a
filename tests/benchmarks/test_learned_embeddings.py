"""benchmarks/learned_embeddings.py on a folder of digits."""

import json
from pathlib import Path

import pytest

from app.embedders import Embedders
from benchmarks.errors import BenchmarkRefused
from benchmarks.learned_embeddings import LearnedPlan, contenders, measure_learned
from models.catalog import installed
from tests.app.cli.conftest import Oddity, oddity, quick
from tests.benchmarks.conftest import SPEC

__all__ = ["oddity", "quick"]

QUICK = {"trials": 1, "seeds": 2, "folds": 2, "width": 16, "epochs": 1, "limit": 6}


def test_every_method_and_loss_gets_the_same_budget() -> None:
    found = contenders(LearnedPlan())
    assert {loss for _, loss in found} == {"contrastive", "triplet"}
    assert len({name for name, _ in found}) >= 2 and len(found) == len(set(found))
    for name, _ in found:
        assert installed()[name].role == "embedding"
    with pytest.raises(BenchmarkRefused, match="no_such_loss"):
        contenders(LearnedPlan(losses=("no_such_loss",)))


def test_the_command_writes_figures_of_classes_kept_apart(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    options = [part for name, value in QUICK.items() for part in (f"--{name}", value)]
    ran = oddity("bench", "embeddings", digits, "--loss", "triplet", *options, "--out", tmp_path)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / f"embeddings-{digits.name}.json").read_text())
    assert len(found["methods"]) == len(contenders(LearnedPlan(losses=("triplet",))))
    for one in found["methods"]:
        assert one["loss"] == "triplet" and one["details"]["test_classes"] == 5
        assert one["before"] == found["methods"][0]["before"] != one["after"]
        assert all(0 <= value <= 1 for value in one["after"].values())
    text = (tmp_path / f"embeddings-{digits.name}.md").read_text()
    assert "MAP@R" in text and "untrained" in text and found["methods"][0]["method"] in text


def test_too_few_classes_are_refused(digits: Path, embedders: Embedders, cache: Path, tmp_path: Path) -> None:
    for kind in sorted((digits / "train").iterdir())[:5]:
        (tmp_path / "few" / kind.name).mkdir(parents=True)
        for file in sorted(kind.iterdir())[:3]:
            (tmp_path / "few" / kind.name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(BenchmarkRefused, match="6 classes"):
        measure_learned(tmp_path / "few", embedders, SPEC, LearnedPlan(), cache)
