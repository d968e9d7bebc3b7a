"""`oddity bench` on the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.cli.conftest import Oddity, oddity, quick

__all__ = ["oddity", "quick"]


def test_accuracy_writes_json_and_markdown(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "accuracy", digits, "--limit", 8, "--protocol", "images", "--normal", "0", "--out", tmp_path / "o",
        "--data", tmp_path / "d", "--rate", 0.1, "--metric", "l2", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["plan"]["rates"] == [0.1]
    assert found["plan"]["metric"] == "l2"
    name = f"accuracy-{digits.name}"
    assert json.loads((tmp_path / "o" / f"{name}.json").read_text())["data"] == found["data"]
    assert "ROC-AUC" in (tmp_path / "o" / f"{name}.md").read_text()


def test_reference_agrees(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity("bench", "reference", digits, "--limit", 8, "--normal", "0", "--out", tmp_path / "o", "--stored")
    assert ran.code == 0, ran.err
    assert "scikit-learn" in ran.out


def test_a_bank_smaller_than_k_is_a_sentence(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity("bench", "reference", digits, "--limit", 5, "--normal", "0", "--out", tmp_path / "o", "--stored")
    assert ran.code == 1
    assert "more than 5 images" in ran.err


def test_a_folder_of_another_layout_is_a_sentence(oddity: Oddity, tmp_path: Path) -> None:
    ran = oddity("bench", "accuracy", tmp_path, "--out", tmp_path / "o")
    assert ran.code == 1
    assert "must hold train/<kind>/" in ran.err
    assert "Traceback" not in ran.err


def test_missing_weights_are_a_sentence(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity("bench", "accuracy", digits, "--weights", "file:nowhere.safetensors", "--out", tmp_path / "o")
    assert ran.code == 1
    assert "nowhere.safetensors" in ran.err


def test_false_alarms_are_measured_on_folders(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "false-alarms", digits / "train" / "0", "--splits", 40, "--set-size", 2, "--out", tmp_path / "o",
        "--data", tmp_path / "d",
    )  # fmt: skip
    assert ran.code == 0, ran.err + ran.out
    found = json.loads((tmp_path / "o" / "false_alarms.json").read_text())
    rows = found["pools"][0]["rows"]
    assert {(row["way"], row["n"]) for row in rows} >= {("held out", 20), ("leave one out", 20)}
    assert all(row["splits"] == 40 for row in rows)


def test_false_alarms_of_sets_of_a_kind_are_told_from_those_of_any(
    oddity: Oddity, digits: Path, tmp_path: Path
) -> None:
    ran = oddity(
        "bench", "false-alarms", digits / "train", "--sets-of-a-kind", "--splits", 20, "--set-size", 2,
        "--out", tmp_path / "o", "--data", tmp_path / "d",
    )  # fmt: skip
    assert ran.code in (0, 1), ran.err
    rows = json.loads((tmp_path / "o" / "false_alarms.json").read_text())["pools"][0]["rows"]
    assert {row["way"] for row in rows} == {"drawn sets", "registered", "sets by images", "registered by images"}


WAITS = """
import os, sys, time
from pathlib import Path
from app.cli.bench import cli
from benchmarks.job_pressure import running_server

@cli.command()
def waits() -> None:
    with running_server(dict(os.environ), Path(sys.argv[2])) as (url, server):
        print(server.pid, flush=True)
        time.sleep(600)

cli(["waits"])
"""


def test_a_benchmark_that_is_told_to_end_ends_its_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITS, "--", str(tmp_path)]
    environment = {**os.environ, "ODDITY_JOBS": "off"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as benchmark:
        assert benchmark.stdout is not None
        server = int(benchmark.stdout.readline())
        os.kill(server, 0)
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
