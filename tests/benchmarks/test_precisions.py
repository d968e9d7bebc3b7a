"""benchmarks/precisions.py: neighbours by hand, and int8 beside float32 on digits."""

import json
from pathlib import Path

import numpy as np

from benchmarks.precisions import nearest, overlap
from tests.app.cli.conftest import Oddity, oddity, quick

__all__ = ["oddity", "quick"]


def test_nearest_others_by_hand() -> None:
    angles = np.radians([0, 10, 25, 90, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * np.float32(
        [[1], [9], [2], [5], [1]]
    )
    assert [set(row) for row in nearest(vectors, 2).tolist()] == [{1, 2}, {0, 2}, {0, 1}, {2, 4}, {2, 3}]
    assert nearest(vectors, 10).shape == (5, 4)  # all others


def test_overlap_by_hand() -> None:
    assert overlap(np.array([[1, 2], [0, 2]]), np.array([[2, 3], [2, 0]])) == 0.75


def test_precisions_beside_exact(oddity: Oddity, digits: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "precisions", digits, "--weights", "stand-in", "--image-size", 32, "--limit", 12,
        "--precision", "int8", "--out", tmp_path / "o", "--data", tmp_path / "d", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    exact, coarse = json.loads(ran.out)["rows"]
    assert (exact["asked"], exact["recall"], coarse["asked"]) == ("exact", 1.0, "int8")
    assert exact["cosine_min"] > 0.999999
    if coarse["ran"].endswith("int8"):  # else the gate refused it here, and the table says what ran
        assert coarse["cosine_min"] < 0.999999 and 0.5 < coarse["recall"] < 1.0
    else:
        assert coarse["cosine_min"] > 0.999 and coarse["recall"] > 0.99
    assert coarse["ran"] in (tmp_path / "o" / "precisions.md").read_text()
