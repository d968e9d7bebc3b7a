"""`oddity bench methods`: methods on the same splits, through the service's own fit and score."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from starlette.testclient import TestClient

from app.embedders import Embedders
from app.main import create_app
from app.settings import Settings
from benchmarks.embedding import embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import cases, read_layout
from benchmarks.methods import MethodsPlan, _split, measure_methods
from benchmarks.methods_report import methods_text, setting_sentence, write_cards
from benchmarks.setting import setting
from tests.app.cli.conftest import Oddity, oddity, quick
from tests.benchmarks.conftest import SPEC

__all__ = ["oddity", "quick"]
pytestmark = pytest.mark.usefixtures("outside_methods")
PLAN = MethodsPlan(methods=("contrast", "spread"), limit=24, normal=("1",))


def test_the_figures_are_those_of_the_served_scores(
    digits: Path, embedders: Embedders, cache: Path, tmp_path: Path
) -> None:
    found = measure_methods([digits], embedders, SPEC, PLAN, cache)
    rows = {one["method"]: one for one in found["data"][0]["cases"]}
    assert set(rows) == {None, "contrast", "spread"}

    layout = read_layout(digits, PLAN.limit)
    (case,) = cases(layout, normal=PLAN.normal)
    pool, _ = embed_files(layout.files(), embedders, SPEC, cache)
    split = _split(layout, case, pool, PLAN)
    file_of = {row: file for file, row in pool.row_of.items()}
    settings = Settings(data=tmp_path / "served", weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings)) as client:
        client.put("/v1/collections/c").raise_for_status()
        bank = sorted({pool.row_of[file] for file in layout.train["1"]})
        data = [file_of[row].read_bytes() for row in bank]
        files = [("files", (f"{row}.png", one)) for row, one in zip(bank, data, strict=True)]
        answer = client.post("/v1/collections/c/images", files=files)
        assert [one["id"] for one in answer.json()["items"]] == [hashlib.sha256(one).hexdigest() for one in data]
        for name in ("spread", "contrast"):
            job = client.put(f"/v1/collections/c/scorers/{name}", params={"wait": 60}).json()
            assert job["result"]["calibration"] == rows[name]["calibration"]
            files = [("files", (f"{row}.png", file_of[row].read_bytes())) for row in split.test.tolist()]
            told = client.post("/v1/collections/c/anomaly", files=files, params={"scorer": name}).json()["results"]
            scores = [one["score"] for one in told]
            assert rows[name]["roc_auc"] == pytest.approx(roc_auc_score(split.is_stranger, scores), abs=1e-9)
            expected = average_precision_score(split.is_stranger, scores)
            assert rows[name]["average_precision"] == pytest.approx(expected, abs=1e-9)
        plain = client.post("/v1/collections/c/anomaly", files=files).json()["results"]
        expected = roc_auc_score(split.is_stranger, [one["score"] for one in plain])
        assert rows[None]["roc_auc"] == pytest.approx(expected, abs=1e-9)
    assert rows["spread"]["state_bytes"] > 0 and rows["spread"]["fit_s"] > 0 and rows["spread"]["score_ms"] > 0


def test_the_bank_and_the_test_images_have_nothing_in_common(digits: Path, embedders: Embedders, cache: Path) -> None:
    layout = read_layout(digits, 40)
    pool, _ = embed_files(layout.files(), embedders, SPEC, cache)
    for case in cases(layout, together=2)[:3]:
        split = _split(layout, case, pool, PLAN)
        parts = [split.fit, split.calibration, split.normal, split.strangers]
        assert sum(map(len, parts)) == np.unique(np.concatenate(parts)).size
        assert set(split.labels) == case.normal
        assert np.array_equal(np.sort(np.concatenate(list(split.labels.values()))), np.sort(split.fit))


def test_a_report_a_card_and_its_sentence(digits: Path, embedders: Embedders, cache: Path, tmp_path: Path) -> None:
    found = measure_methods([digits], embedders, SPEC, PLAN, cache)
    text = "\n".join(methods_text(found))
    assert "| spread |" in text and "| contrast |" in text
    (tmp_path / "spread").mkdir()
    (path,) = write_cards(found, setting_sentence(found, setting()), tmp_path)  # the other one has no folder here
    card = json.loads(path.read_text())
    assert "The weights are untrained" in card["setting"]
    assert card["rows"][0]["ROC-AUC"] == f"{100 * found['summary'][1]['roc_auc']:.1f}"
    again = measure_methods([digits], embedders, SPEC, PLAN, cache)
    for one, other in zip(found["summary"], again["summary"], strict=True):
        assert (one["roc_auc"], one["state_bytes"]) == (other["roc_auc"], other["state_bytes"])


def test_what_cannot_be_measured_says_why(digits: Path, embedders: Embedders, cache: Path) -> None:
    with pytest.raises(BenchmarkRefused, match="`method` must be among"):
        measure_methods([digits], embedders, SPEC, MethodsPlan(methods=("none",)), cache)
    small = MethodsPlan(methods=("spread",), limit=20, normal=("1",))
    (one,) = measure_methods([digits], embedders, SPEC, small, cache)["summary"]
    assert "skipped" not in one  # twenty images are just enough


def test_the_command(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "methods", digits, "--method", "spread", "--limit", 30, "--cases-max", 2, "--out", tmp_path / "o",
        "--data", tmp_path / "d", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (one,) = json.loads(ran.out)["summary"]
    assert one["cases"] == 2 and 0 <= one["roc_auc"] <= 1 and one["plain"]["roc_auc"] > 0.5
    assert (tmp_path / "o" / "methods.md").exists()
    assert oddity("bench", "methods", digits, "--quick", "--cards").code == 2
