"""The search benchmark on few rows: every part, the two files, and a comparison of ids that can fail."""

import json

import numpy as np
import pytest
import torch

from benchmarks import search_speed
from index import Neighbours, threads


@pytest.fixture(autouse=True)
def own_threads(monkeypatch):
    """The benchmark sets thread counts; the tests after this one get theirs back."""
    monkeypatch.setattr(threads, "_threads", None)
    monkeypatch.setattr(search_speed, "ALONE_REPETITIONS", 1)
    monkeypatch.setattr(search_speed, "FILTERED_REPETITIONS", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_part_is_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search_speed, "BATCHES", (1, 16))
    parts = ("exact", "approximate", "filtered")
    as_json, as_text = search_speed.run(
        tmp_path, 2000, exact_rows=1000, width=32, parts=parts, repetitions=1, threads=1
    )
    found = json.loads(as_json.read_text())
    assert {one["data"] for one in found["exact"]} == {"gaussian", "clusters 0.1", "clusters 0.01"}
    assert all(one["right"]["scan"] == 1.0 for one in found["exact"])
    systems = {one["system"]: one for one in found["approximate"]}
    assert {"scan", "hnsw", "ivf"} <= set(systems)
    assert systems["scan"]["recall"] == 1.0
    assert all(one["recall"] >= 0.95 and one["bytes_per_vector"] > 128 for one in systems.values())
    cases = found["filtered"]
    assert len(cases) == 2 * 4 * 3
    assert all(case["least_returned"] == min(10, round(case["share"] * 2000)) for case in cases)
    assert all(case["recall"] >= 0.95 for case in cases)
    assert found["setting"]["machine"]["cores"]
    text = as_text.read_text()
    for heading in (
        "## Exact: 1000 rows",
        "## Approximate: 2000 rows",
        "## Filtered: 2000 rows",
    ):
        assert heading in text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["search_speed.json", "search_speed.md"]
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(found["exact"]) + len(found["approximate"]) + len(cases)


def test_strange_queries_are_judged_against_the_exact_answer(tmp_path):
    random = np.random.default_rng(0)
    strange = tmp_path / "noise.npy"
    np.save(strange, random.standard_normal((256, 32), dtype=np.float32))
    as_json, as_text = search_speed.run(
        tmp_path, 3000, width=32, parts=("approximate",), repetitions=1, threads=1, strange=[strange], systems=["hnsw"]
    )
    (row,) = json.loads(as_json.read_text())["strange"]
    assert row["structure"] == "hnsw" and row["queries"] == "noise"
    assert 0.3 < row["recall"] <= 1
    assert 1 <= row["second_distance"]["mean"] <= row["second_distance"]["largest"]
    assert "## Strange queries: 3000 rows" in as_text.read_text()


def test_a_comparison_that_was_cut_short_goes_on(tmp_path, capsys):
    def measure(rows, systems, **more):
        named = {"width": 32, "parts": ("approximate",), "repetitions": 1, "threads": 1, "systems": systems}
        as_json, _ = search_speed.run(tmp_path, rows, **named, **more)
        told = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
        report = [one["system"] for one in json.loads(as_json.read_text())["approximate"]]
        return [json.loads(line)["system"] for line in told], report

    assert measure(1500, ("scan",)) == (["scan"], ["scan"])
    assert measure(1500, ("scan", "ivf"), resume=True) == (["ivf"], ["scan", "ivf"])
    assert measure(1600, ("scan",), resume=True) == (["scan"], ["scan"]), "measured on other rows"


def test_vectors_from_a_file_and_a_graph_after_a_restart(tmp_path, monkeypatch):
    """The files stand after each row, so that a run cut short is not lost."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((20, 16))[random.integers(0, 20, 2756)] + random.standard_normal((2756, 16))
    np.save(tmp_path / "photos.npy", vectors.astype(np.float32))
    monkeypatch.setattr(search_speed, "STRUCTURES", ("hnsw",))
    monkeypatch.setattr(search_speed, "choose_structure", lambda *_: "hnsw")
    seen = []
    real = search_speed._write
    monkeypatch.setattr(search_speed, "_write", lambda found, out: seen.append(len(found)) or real(found, out))
    as_json, as_text = search_speed.run(
        tmp_path,
        2000,
        width=16,
        parts=("filtered", "restart"),
        repetitions=1,
        threads=1,
        vectors=tmp_path / "photos.npy",
    )
    found = json.loads(as_json.read_text())
    assert (found["data"], found["rows"], found["width"]) == ("photos", 2000, 16)
    assert "exact" not in found
    assert [(one["structure"], one["same_answers"]) for one in found["restart"]] == [("hnsw", True)]
    assert "## Restart: 2000 rows" in as_text.read_text()
    assert len(seen) == 8 + 1 + 1


def test_other_ids_are_noticed_unless_they_tie():
    stored = np.arange(20, dtype=np.float32)[:, None]
    stored[11] = stored[9]  # the tenth nearest, twice
    asked = np.zeros((3, 1), dtype=np.float32)
    nine = list(range(9))
    ids = np.array([[*nine, 9], [*nine, 11], [*nine, 10]])
    found = Neighbours(ids, np.zeros(ids.shape, dtype=np.float32))
    assert search_speed._right(found, stored, asked) == pytest.approx(2 / 3)
