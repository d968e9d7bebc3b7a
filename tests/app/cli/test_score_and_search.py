"""`oddity score` and `oddity search` say what the service says."""

import csv
import json
from pathlib import Path

import pytest

from app.cli.client import open_client
from tests.app.cli.conftest import Oddity


@pytest.fixture
def data(oddity: Oddity, folder: Path, tmp_path: Path) -> Path:
    """A data folder with the left images as a bank."""
    oddity("ingest", folder / "left", "-c", "parts", "--data", tmp_path / "d")
    return tmp_path / "d"


def test_csv_rows_equal_the_service_and_keep_the_order(
    oddity: Oddity, folder: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "scores.csv"
    ran = oddity("score", folder, "-c", "parts", "--data", data, "--out", out, "--k", 3, "--false-alarm-rate", 0.2)
    assert ran.code == 1  # one file is broken
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert len(rows) == 13
    with open_client(None, data) as client:
        for row in rows:
            result = client.collection("parts").score([folder / row["path"]], k=3).results[0]
            if row["path"] == "right/broken.png":
                assert row["problem"] == result.problem.detail
                assert row["score"] == ""
            else:
                assert float(row["score"]) == pytest.approx(result.score, rel=1e-4, abs=1e-6)
                assert float(row["p_value"]) == result.p_value
                assert row["neighbour_1"] == result.neighbours[0].id
                assert row["file_1"] == result.neighbours[0].metadata["filename"]
                assert row["problem"] == ""


def test_parameters_reach_the_service(oddity: Oddity, folder: Path, data: Path, tmp_path: Path) -> None:
    def first_score(*options: object) -> str:
        out = tmp_path / "scores.csv"
        oddity("score", folder / "right", "-c", "parts", "--data", data, "--out", out, *options)
        with out.open(newline="", encoding="utf-8") as file:
            return next(csv.DictReader(file))["score"]

    assert float(first_score("--k", 1)) < float(first_score("--k", 5))


def test_what_a_verdict_is_worth_is_said_where_it_is_not_what_was_asked_for(
    oddity: Oddity, folder: Path, data: Path, tmp_path: Path
) -> None:
    def told(collection: str, *options: object) -> str:
        out = tmp_path / "scores.csv"
        ran = oddity("score", folder / "left", "-c", collection, "--data", data, "--out", out, *options)
        assert ran.code == 0, ran.err
        return " ".join((ran.out or ran.err).split())

    assert "0 anomalous" in told("parts") and "There is no verdict: 6 normal images are too few" in told("parts")
    oddity("ingest", folder, "-c", "both", "--data", data)
    assert "12 normal images support no finer one than 7.69%" in told("both", "--false-alarm-rate", 0.01)
    enough = told("both", "--false-alarm-rate", 0.2)
    assert "anomalous" in enough and "finer" not in enough and "no verdict" not in enough
    assert json.loads(told("both", "--false-alarm-rate", 0.2, "--json"))["calibration"]["n"] == 12


def test_a_failed_run_leaves_no_csv(oddity: Oddity, folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    ran = oddity("score", folder, "-c", "other", "--data", data, "--out", out)
    assert ran.code == 1
    assert "There is no collection `other`" in ran.err
    assert not list(tmp_path.glob("scores*"))


def test_csv_goes_to_standard_output_when_asked(oddity: Oddity, folder: Path, data: Path) -> None:
    ran = oddity("score", folder / "left", "-c", "parts", "--data", data, "--out", "-", "--neighbours", 0)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "path,score,p_value,anomalous,problem"
    assert len(ran.out.splitlines()) == 7


def test_an_image_of_the_collection_is_its_own_nearest(oddity: Oddity, folder: Path, data: Path) -> None:
    image = folder / "left" / "3.png"
    answer = json.loads(oddity("search", image, "-c", "parts", "--data", data, "--k", 2, "--json").out)
    nearest = answer["results"][0]
    assert len(nearest) == 2
    assert nearest[0]["metadata"]["filename"] == "3.png"
    assert nearest[0]["distance"] == pytest.approx(0, abs=1e-5)
    shown = oddity("search", image, "-c", "parts", "--data", data)
    assert shown.code == 0
    assert nearest[0]["id"] in shown.out


def test_searching_with_a_broken_image_is_a_sentence(oddity: Oddity, folder: Path, data: Path) -> None:
    ran = oddity("search", folder / "right" / "broken.png", "-c", "parts", "--data", data)
    assert ran.code == 1
    assert "`image` must be" in ran.err
