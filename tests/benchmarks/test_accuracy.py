"""The whole harness on small folders: figures repeat, and reports say what they rest on."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.embedders import Embedders
from benchmarks.accuracy import AccuracyPlan, means, measure_accuracy, recovered
from benchmarks.errors import BenchmarkRefused
from benchmarks.report import accuracy_text, write_report
from tests.benchmarks.conftest import SPEC

PLAN = AccuracyPlan(limit=18, bank=18, set_sizes=(3, 20), fraction=0.4, poolings=("mean",))


def figures(found: dict[str, Any]) -> str:
    """Everything but seconds, as text."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(one) for name, one in value.items() if name not in ("seconds", "plan")}
        return [bare(one) for one in value] if isinstance(value, list) else value

    return json.dumps(bare(found), sort_keys=True)


def test_the_same_seed_gives_the_same_figures(digits: Path, embedders: Embedders, cache: Path) -> None:
    def run(seed: int) -> str:
        plan = AccuracyPlan(**{**{name: getattr(PLAN, name) for name in PLAN.__slots__}, "seed": seed})
        return figures(measure_accuracy(digits, embedders, SPEC, plan, cache))

    first = run(1)
    assert run(1) == first
    assert run(2) != first


def test_every_class_is_measured_under_every_protocol(digits: Path, embedders: Embedders, cache: Path) -> None:
    found = measure_accuracy(digits, embedders, SPEC, PLAN, cache)
    assert found["weights"] == "stand-in"
    images = found["protocols"]["images"]
    assert [one["case"] for one in images["cases"]] == list("0123456789")
    assert all((one["bank"], one["normal"], one["strangers"]) == (18, 18, 162) for one in images["cases"])
    assert images["means"][0]["roc_auc"] > 0.8  # scans of one digit are near each other even untrained
    contaminated = found["protocols"]["contaminated"]["cases"]
    assert all((one["planted"], one["dropped"]) == (2, 3) for one in contaminated)
    sets = found["protocols"]["sets"]
    assert sum("skipped" in one for one in sets["cases"]) == 10  # 20 images in a set are too many here
    assert [one["variant"] for one in sets["means"]] == ["3 images, mean"]


def test_defects_are_planted_from_test_images_which_are_then_not_tested(
    textures: Path, embedders: Embedders, cache: Path
) -> None:
    plan = AccuracyPlan(protocols=("contaminated",), limit=54, bank=45, metric="l2", k=1)
    found = measure_accuracy(textures, embedders, SPEC, plan, cache)
    case = found["protocols"]["contaminated"]["cases"][0]
    assert case["planted"] == 5
    assert case["clean"]["strangers"] == 85
    assert case["clean"]["normal"] == 54


def test_several_classes_together(digits: Path, embedders: Embedders, cache: Path) -> None:
    plan = AccuracyPlan(protocols=("images",), limit=10, normal=("1", "7"))
    found = measure_accuracy(digits, embedders, SPEC, plan, cache)
    case = found["protocols"]["images"]["cases"][0]
    assert (case["case"], case["bank"], case["normal"], case["strangers"]) == ("1+7", 20, 20, 80)


def test_an_unknown_protocol_or_metric_is_refused(digits: Path, embedders: Embedders, cache: Path) -> None:
    with pytest.raises(BenchmarkRefused, match="got magic"):
        measure_accuracy(digits, embedders, SPEC, AccuracyPlan(protocols=("magic",)), cache)
    with pytest.raises(BenchmarkRefused, match="got city"):
        measure_accuracy(digits, embedders, SPEC, AccuracyPlan(metric="city"), cache)


def test_a_report_names_command_machine_commit_and_weights(
    digits: Path, embedders: Embedders, cache: Path, tmp_path: Path
) -> None:
    found = measure_accuracy(digits, embedders, SPEC, PLAN, cache)
    as_json, as_text = write_report(found, tmp_path, "accuracy-digits", accuracy_text(found))
    read = json.loads(as_json.read_text())
    assert read["setting"]["machine"]["processor"]
    assert {"command", "commit", "date", "versions"} <= set(read["setting"])
    assert read["embedding"]["fingerprint"] == found["embedding"]["fingerprint"]
    text = as_text.read_text()
    assert "untrained stand-in" in text
    assert "Sets of 20 need" in text
    trained = {**found, "weights": "embedded"}
    _, as_text = write_report(trained, tmp_path, "trained", accuracy_text(trained))
    assert "untrained" not in as_text.read_text()


def test_what_came_back_is_a_share_of_what_was_lost() -> None:
    assert recovered(0.9, 0.7, 0.8) == pytest.approx(0.5)
    assert recovered(0.9, 0.7, 0.65) == pytest.approx(-0.25)
    assert recovered(0.9, 0.95, 0.9) is None


def test_means_leave_out_what_was_skipped() -> None:
    def one(auc: float) -> dict[str, Any]:
        figures = {"roc_auc": auc, "average_precision": auc, "fpr_at_95_tpr": 0.0}
        return {
            "variant": "",
            **figures,
            "rates": [{"requested": 0.1, "promised": 0.1, "observed": None, "found": auc}],
        }

    found = means([one(0.5), one(1.0), {"variant": "", "skipped": "too few"}])
    assert (found[0]["cases"], found[0]["roc_auc"]) == (2, 0.75)
    assert found[0]["rates"][0]["observed"] is None
