"""The served score is the evaluated score: through HTTP and by scikit-learn on the same vectors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.cli.client import open_client
from app.embedders import Embedders
from benchmarks.embedding import embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import cases, read_layout
from benchmarks.protocols import live_bank
from benchmarks.reference import COLLECTION, compare, files_needed, reference_scores, reference_text
from models.methods.dn2 import DN2Params
from tests.benchmarks.conftest import SPEC

SETTINGS = {"weights": SPEC.weights, "image_size": SPEC.image_size}


def test_by_hand() -> None:
    bank = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    assert reference_scores(bank, np.array([[0, 0]], np.float32), 2, "l2").tolist() == [2.5]
    bank = np.array([[1, 0], [0, 2]], np.float32)
    assert reference_scores(bank, np.array([[5, 0]], np.float32), 2, "cosine").tolist() == pytest.approx([0.5])


@pytest.mark.parametrize("is_stored", [False, True])
def test_served_scores_equal_the_reference(
    digits: Path, embedders: Embedders, cache: Path, tmp_path: Path, is_stored: bool
) -> None:
    layout = read_layout(digits, 6)
    case = cases(layout, normal=("8",))[0]
    pool, embedder = embed_files(files_needed(layout, case), embedders, SPEC, cache)
    with open_client(None, tmp_path / "service") as client:
        compared = compare(client, layout, case, pool, SETTINGS, embedder.identity.fingerprint, is_stored=is_stored)
        assert not client.collection(COLLECTION).exists()
        with pytest.raises(BenchmarkRefused, match="must embed as this command does"):
            compare(client, layout, case, pool, SETTINGS, "another")
    assert {(one["metric"], one["k"]) for one in compared} == {(m, k) for m in ("cosine", "l2") for k in (1, 2, 5)}
    assert all(one["is_within_bar"] for one in compared)
    assert max(one["score_difference"] for one in compared) < 1e-4
    assert "| cosine, 1 |" in "\n".join(reference_text({"data": "digits", "case": "8", "comparisons": compared}))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_evaluated_score_equals_the_reference(digits: Path, embedders: Embedders, cache: Path, metric: str) -> None:
    layout = read_layout(digits, 12)
    pool, _ = embed_files(layout.files(), embedders, SPEC, cache)
    bank, test = pool.rows(layout.train["3"]), pool.rows(layout.test["5"])
    for k in (1, 2, 5):
        ours = live_bank(pool, bank, DN2Params(k=k, metric=metric)).score(pool.vectors[test]).score
        theirs = reference_scores(pool.vectors[bank], pool.vectors[test], k, metric)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_other_vectors_are_noticed(digits: Path, embedders: Embedders, cache: Path, tmp_path: Path) -> None:
    layout = read_layout(digits, 6)
    case = cases(layout, normal=("8",))[0]
    pool, embedder = embed_files(layout.files(), embedders, SPEC, cache)
    shuffled = replace(pool, vectors=np.random.default_rng(0).permutation(pool.vectors))
    with open_client(None, tmp_path / "service") as client:
        wrong = compare(client, layout, case, shuffled, SETTINGS, embedder.identity.fingerprint, is_stored=True)
    assert not any(one["is_within_bar"] for one in wrong)
