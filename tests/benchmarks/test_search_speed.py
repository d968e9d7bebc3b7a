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
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_part_is_measured_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(search_speed, "BATCHES", (1, 16))
    as_json, as_text = search_speed.run(tmp_path, 3000, width=32, repetitions=1, threads=1)
    found = json.loads(as_json.read_text())
    assert {one["data"] for one in found["exact"]} == {"gaussian", "clusters 0.1", "clusters 0.01"}
    assert all(batch["right"]["scan"] == 1.0 for one in found["exact"] for batch in one["batches"])
    systems = {one["system"]: one for one in found["approximate"]["systems"]}
    assert {"scan", "hnsw", "ivf"} <= set(systems)
    assert systems["scan"]["recall"] == 1.0
    assert all(one["recall"] >= 0.95 and one["bytes_per_vector"] > 128 for one in systems.values())
    cases = found["filtered"]["cases"]
    assert len(cases) == 2 * 4 * 3
    assert all(case["least_returned"] == min(10, round(case["share"] * 3000)) for case in cases)
    assert found["setting"]["machine"]["cores"]
    text = as_text.read_text()
    for heading in ("## Exact", "## Approximate, spectrum", "## Filtered, spectrum"):
        assert heading in text


def test_given_vectors_take_the_place_of_drawn_ones(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((1200, 16)).astype(np.float32)
    as_json, _ = search_speed.run(
        tmp_path, 944, width=16, parts=("filtered",), repetitions=1, threads=1, vectors=vectors
    )
    found = json.loads(as_json.read_text())
    assert found["filtered"]["data"] == "given"
    assert "exact" not in found


def test_other_ids_are_noticed_unless_they_tie():
    stored = np.arange(20, dtype=np.float32)[:, None]
    stored[11] = stored[9]  # the tenth nearest, twice
    asked = np.zeros((3, 1), dtype=np.float32)
    nine = list(range(9))
    ids = np.array([[*nine, 9], [*nine, 11], [*nine, 10]])
    found = Neighbours(ids, np.zeros(ids.shape, dtype=np.float32))
    assert search_speed._right(found, stored, asked) == pytest.approx(2 / 3)
