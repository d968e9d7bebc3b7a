"""benchmarks/few_shot.py on drawn classes whose figures are known, and on a folder of digits."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import BenchmarkRefused
from benchmarks.few_shot import FewShotPlan, class_files, measure_episodes, measure_time
from benchmarks.metrics import expected_calibration_error
from models.methods.few_shot_lr import FewShotLRParams
from tests.app.cli.conftest import Oddity, oddity, quick

__all__ = ["oddity", "quick"]

PLAN = FewShotPlan(ways=3, queries=6, episodes=25, rates=(0.1, 0.2))


def drawn(spread: float, n_classes: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    classes = np.repeat(np.arange(n_classes), 20)
    centres = random.normal(size=(n_classes, 10))
    vectors = (centres[classes] + random.normal(0, spread, (classes.size, 10))).astype(np.float32)
    return vectors, {f"c{number}": np.flatnonzero(classes == number) for number in range(n_classes)}


def test_classes_far_apart_are_told_apart_and_mixed_ones_are_guessed() -> None:
    apart = measure_episodes(*drawn(0.05), 5, PLAN)
    assert apart["accuracy"] == {"mean": 1.0, "half_width": 0.0}
    assert apart["unknown_roc_auc"]["mean"] > 0.999
    mixed = measure_episodes(*drawn(50.0), 5, PLAN)
    assert mixed["accuracy"]["mean"] == pytest.approx(1 / 3, abs=0.1)
    assert mixed["unknown_roc_auc"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert mixed["accuracy"]["half_width"] > 0.01


def test_the_promise_of_unknown_is_kept_and_the_claims_hold() -> None:
    found = measure_episodes(*drawn(0.5), 5, PLAN)
    for rate in found["rates"]:
        assert rate["promised"] == pytest.approx(int(rate["requested"] * 16) / 16)  # 3 classes of 5
        assert rate["known_called_unknown"]["mean"] <= rate["promised"] + 0.07
        assert rate["strangers_found"]["mean"] > 2 * rate["known_called_unknown"]["mean"]
    assert found["calibration_error"] < 0.1
    again = measure_episodes(*drawn(0.5), 5, PLAN)
    assert again == found


def test_one_shot_gives_no_verdict_and_no_strangers_no_area() -> None:
    found = measure_episodes(*drawn(0.3, 3), 1, PLAN)
    assert found["unknown_roc_auc"] is None and found["accuracy"]["mean"] > 0.5
    assert all(one["promised"] is None and one["strangers_found"] is None for one in found["rates"])
    with pytest.raises(BenchmarkRefused, match="3 classes of at least 26"):
        measure_episodes(*drawn(0.3), 20, PLAN)


def test_c_is_that_of_the_fit_on_the_same_episodes() -> None:
    vectors, rows = drawn(0.8)
    timid, usual, bold = (measure_episodes(vectors, rows, 5, PLAN, c) for c in (1e-6, FewShotLRParams().c, 1e4))
    assert usual == measure_episodes(vectors, rows, 5, PLAN)
    assert timid["accuracy"] != bold["accuracy"]
    assert timid["unknown_roc_auc"] == bold["unknown_roc_auc"]  # by distance, whatever the fit


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0
    # One bin claims 0.9 and is right half the time, another claims 0.5 and is right always.
    assert expected_calibration_error([0.9, 0.9, 0.5], [True, False, True], bins=2) == pytest.approx(
        abs(0.9 + 0.9 + 0.5 - 2) / 3
    )
    assert expected_calibration_error([0.9, 0.9, 0.4], [True, False, True], bins=2) == pytest.approx((0.8 + 0.6) / 3)
    with pytest.raises(BenchmarkRefused):
        expected_calibration_error([], [])


def test_time_is_of_the_case_named() -> None:
    found = measure_time(20, 3, 16, 0)
    assert (found["classes"], found["shots"], found["width"]) == (20, 3, 16)
    assert found["fit_s"] > 0 and found["answer_s"] > 0


def test_the_command_on_a_folder_of_classes(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "few-shot", digits, "--limit", 14, "--queries", 4, "--episodes", 6, "--ways", 3, "--shots", 2,
        "--shots", 5, "--c", 1, "--c", 10, "--many-classes", 30, "--out", tmp_path / "o", "--data", tmp_path / "d",
        "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert [(one["shots"], one["c"]) for one in found["episodes"]] == [(2, 1), (2, 10), (5, 1), (5, 10)]
    assert found["time"]["classes"] == 30 and len(found["data"]["classes"]) == 10
    text = (tmp_path / "o" / f"few_shot-{digits.name}.md").read_text()
    assert "3-way 5-shot, c 10" in text and "ROC-AUC" in text
    assert set(class_files(digits / "train", 2)) == set(class_files(digits))


def test_a_folder_without_classes_is_a_sentence(oddity: Oddity, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = oddity("bench", "few-shot", tmp_path / "empty", "--out", tmp_path / "o")
    assert ran.code == 1 and "a folder of images for each of two classes" in ran.err
