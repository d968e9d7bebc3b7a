"""`oddity fit` and `oddity scorers` on a data folder."""

import json
from pathlib import Path

import pytest

from tests.app.cli.conftest import Oddity
from tests.app.working import part

pytestmark = pytest.mark.usefixtures("outside_methods")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.png").write_bytes(part(number))
    return folder


def test_a_method_is_fitted_and_listed(oddity: Oddity, parts: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert oddity("ingest", parts, "-c", "c", "--data", data).code == 0
    ran = oddity("fit", "c", "spread", "--param", "factor=2.5", "--id", "mine", "--seed", 4, "--wait", "--data", data)
    assert ran.code == 0, ran.err
    assert "c: mine is ready, fitted on 20 images and calibrated on 10" in ran.err
    listed = json.loads(oddity("scorers", "c", "--data", data, "--json").out)
    mine = next(one for one in listed if one["id"] == "mine")
    assert (mine["method"], mine["state"], mine["seed"], mine["params"]["factor"]) == ("spread", "ready", 4, 2.5)
    table = oddity("scorers", "c", "--data", data)
    assert "mine" in table.out and "follows the collection" in table.out
    methods = oddity("scorers", "--data", data)
    assert "spread" in methods.out and "Distance from the mean vector." in methods.out

    out = tmp_path / "mine.csv"
    assert oddity("score", parts, "-c", "c", "-o", out, "--scorer", "mine", "--data", data).code == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 31
    assert oddity("fit", "c", "contrast", "--data", data).code == 0
    page = tmp_path / "report.html"
    ran = oddity("report", parts, "-c", "c", "--scorer", "contrast", "--worst", 2, "-o", page, "--data", data)
    assert ran.code == 0, ran.err
    assert page.read_text(encoding="utf-8").count('alt="heat map"') == 2
    assert oddity("scorers", "c", "--delete", "mine", "--data", data).code == 0
    assert "mine" not in oddity("scorers", "c", "--data", data).out
    told = oddity("scorers", "c", "--delete", "mine", "--data", data)
    assert told.code == 1 and "no fitted scorer `mine`" in told.err
    assert oddity("scorers", "--delete", "mine", "--data", data).code == 2

    told = oddity("fit", "c", "spread", "--param", "factor=0", "--data", data)
    assert told.code == 2 and "`factor` of method `spread` must be greater than 0; got 0." in told.err
    told = oddity("fit", "c", "spread", "--param", "refuse=true", "--wait", "--data", data)
    assert told.code == 1 and "must please it" in told.err
    told = oddity("fit", "c", "spread", "--param", "factor", "--data", data)
    assert told.code == 2 and "must be NAME=VALUE" in told.err
    told = oddity("fit", "c", "nothing", "--data", data)
    assert told.code == 2 and "`method` must be one of" in told.err
