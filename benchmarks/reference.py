"""`oddity bench reference`: the served scores against ten lines of scikit-learn, on the same vectors."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oddity_client import Client, ItemProblem
from sklearn.neighbors import NearestNeighbors

from app.cli.ingest import Advance, ingest_pictures
from app.cli.score import score_pictures
from app.cli.sending import Picture
from benchmarks.embedding import Pool
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import Case, Layout
from benchmarks.metrics import roc_auc
from benchmarks.report import table

BAR = 0.0005
KS = (1, 2, 5)
METRICS = ("cosine", "l2")
COLLECTION = "bench-reference"
IDS_AT_ONCE = 500


def reference_scores(
    bank: NDArray[np.float32], queries: NDArray[np.float32], k: int, metric: str
) -> NDArray[np.float64]:
    """Mean distance to the k nearest rows of the bank, by scikit-learn in float64.

    Shapes: bank (N, D), queries (Q, D) -> (Q,).
    """
    name = {"cosine": "cosine", "l2": "euclidean"}[metric]
    nearest: Any = NearestNeighbors(n_neighbors=k, metric=name, algorithm="brute")  # type: ignore[no-untyped-call]
    nearest.fit(bank.astype(np.float64))
    distances, _ = nearest.kneighbors(queries.astype(np.float64))
    means: NDArray[np.float64] = distances.mean(axis=1)
    return means


def files_needed(layout: Layout, case: Case) -> list[Path]:
    """The bank and every test image: all that is compared."""
    bank = [file for kind in sorted(case.normal) for file in layout.train[kind]]
    return [*bank, *(file for kind in sorted(layout.test) for file in layout.test[kind])]


def compare(
    client: Client,
    layout: Layout,
    case: Case,
    pool: Pool,
    settings: dict[str, Any],
    fingerprint: str,
    advance: Advance | None = None,
    *,
    is_stored: bool = False,
) -> list[dict[str, Any]]:
    """Both ROC-AUCs for each k and metric; the bank and every test image go through HTTP as files.

    With `is_stored` the test images are sent once, outside the bank, and scored by id each time. The collection is
    made afresh and deleted at the end.

    Raises:
        BenchmarkRefused: the service embeds differently, or refuses an image.
    """
    place = client.collection(COLLECTION)
    bank = [file for kind in sorted(case.normal) for file in layout.train[kind] if file in pool.row_of]
    rows = pool.rows(bank)
    banked = set(rows.tolist())
    # The same bytes are one image in a service: it cannot be in the bank and outside it.
    test = [
        file
        for kind in sorted(layout.test)
        for file in layout.test[kind]
        if file in pool.row_of and pool.row_of[file] not in banked
    ]
    is_stranger = np.array([file.parent.name not in case.normal for file in test])
    asked = np.array([pool.row_of[file] for file in test], np.int64)
    if rows.size <= max(KS):
        raise BenchmarkRefused(f"The bank must hold more than {max(KS)} images; got {rows.size}.")
    if place.exists():
        raise BenchmarkRefused(f"Collection `{COLLECTION}` must not exist at {client.url}; delete it first.")
    about = place.put(**{**settings, "metric": METRICS[0]})
    try:
        if about.fingerprint != fingerprint:
            raise BenchmarkRefused(f"The service must embed as this command does; got {about.fingerprint[:12]}.")
        report = ingest_pictures(client, COLLECTION, _pictures(bank), advance)
        if report.refused:
            raise BenchmarkRefused(f"The service must take every bank image; it refused {report.refused[0]}.")
        if is_stored:
            ingest_pictures(client, COLLECTION, _pictures(test, role="unlabelled"), advance)
        found = []
        for metric in METRICS:
            place.patch(metric=metric)
            for k in KS:
                if is_stored:
                    served = _served_ids(client, [pool.sha256[row] for row in asked], k, advance)
                else:
                    served = _served(client, test, k, advance)
                reference = reference_scores(pool.vectors[rows], pool.vectors[asked], k, metric)
                found.append(_compared(metric, k, served, reference, is_stranger, rows.size))
        return found
    finally:
        place.delete()


def reference_text(found: dict[str, Any]) -> list[str]:
    """The body of a reference report."""
    head = ["metric, k", "served ROC-AUC", "scikit-learn", "difference", "largest relative difference of a score"]
    rows = [
        [
            f"{one['metric']}, {one['k']}",
            f"{one['served']:.6f}",
            f"{one['reference']:.6f}",
            f"{one['difference']:.1e}",
            f"{one['score_difference']:.1e}",
        ]
        for one in found["comparisons"]
    ]
    first = found["comparisons"][0]
    words = (
        f"Data: {found['data']}, `{found['case']}` normal; bank of {first['bank']} images, {first['normal']} normal "
        f"and {first['strangers']} strange test images, all through HTTP. The bar is a difference below {BAR}."
    )
    return [words, "", *table(head, rows)]


def _compared(
    metric: str,
    k: int,
    served: NDArray[np.float64],
    reference: NDArray[np.float64],
    is_stranger: NDArray[np.bool_],
    bank: int,
) -> dict[str, Any]:
    ours, theirs = roc_auc(served, is_stranger), roc_auc(reference, is_stranger)
    scale = float(np.median(reference)) or 1.0
    return {
        "metric": metric,
        "k": k,
        "served": ours,
        "reference": theirs,
        "difference": abs(ours - theirs),
        "score_difference": float(np.abs(served - reference).max() / scale),
        "is_within_bar": abs(ours - theirs) < BAR,
        "bank": bank,
        "normal": int((~is_stranger).sum()),
        "strangers": int(is_stranger.sum()),
    }


def _served(client: Client, test: list[Path], k: int, advance: Advance | None) -> NDArray[np.float64]:
    scores = []
    for name, result in score_pictures(client.collection(COLLECTION), _pictures(test), advance, k=k, neighbours=0):
        if isinstance(result, ItemProblem):
            raise BenchmarkRefused(f"The service must score each test image; got {result.problem.detail} for {name}.")
        scores.append(result.score)
    return np.array(scores, np.float64)


def _served_ids(client: Client, ids: list[str], k: int, advance: Advance | None) -> NDArray[np.float64]:
    scores: list[float] = []
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        answer = client.collection(COLLECTION).score(ids=some, k=k, neighbours=0)
        scores.extend(result.score for result in answer.results if not isinstance(result, ItemProblem))
        if advance is not None:
            advance(len(some))
    return np.array(scores, np.float64)


def _pictures(files: list[Path], **facts: str) -> list[Picture]:
    return [Picture(file.name, file.read_bytes, dict(facts)) for file in files]
