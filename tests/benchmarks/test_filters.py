"""The measurement of filters runs on few images, and its figures are what they say."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.bench import cli
from benchmarks import filters
from benchmarks.filters import KEYS, filters_text, run


def test_a_small_table_is_measured() -> None:
    found = run(5000)
    assert {share: one["found"] for share, one in found["filters"].items()} == {
        "0.001": 5,
        "0.01": 50,
        "0.1": 500,
        "0.5": 2500,
    }
    assert set(found["first_use"]) == set(KEYS)
    assert found["first_use"]["line"]["bytes"] < found["first_use"]["name"]["bytes"]
    assert 2 * found["table_bytes"] < found["objects_bytes"]
    text = "\n".join(filters_text(found))
    assert "5,000 images" in text and "| 0.1 % | 5 |" in text and "| camera.id |" in text


def test_a_wrong_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fitting = filters.Filter.fitting
    monkeypatch.setattr(filters.Filter, "fitting", lambda self, entries: fitting(self, entries)[1:])
    with pytest.raises(AssertionError, match="Image 0"):
        run(2000)


def test_the_command_writes_a_report(tmp_path: Path) -> None:
    answer = CliRunner().invoke(cli, ["filters", "--rows", "2000", "--out", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    found = json.loads((tmp_path / "filters_2000.json").read_text())
    assert found["rows"] == 2000 and found["setting"]["commit"]
    assert "Two equalities" in (tmp_path / "filters_2000.md").read_text()
