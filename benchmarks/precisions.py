"""`oddity bench precisions`: what a precision of the network does to neighbours and to ROC-AUC, against float32.

The same files go through the same weights once for each precision asked for. What runs is what the service would run:
where the processor does not compute in a precision, or the parity gate refuses it, the next safer one is measured, and
the table says so.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.embedders import Embedders
from app.settings import Settings
from benchmarks.backbones import read_folder, roc_auc_of
from benchmarks.embedding import Advance, Pool, embed_files
from benchmarks.report import percent, table
from index.distances import unit_rows
from models.backbones.embedder import EmbeddingSpec

EXACT = "exact"
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class PrecisionsPlan:
    """What is measured on every folder."""

    precisions: tuple[str, ...] = ("auto", "bf16", "int8")
    neighbours: int = 10
    limit: int | None = None
    """Files of each kind; None: all."""


def measure_precisions(
    folders: Sequence[Path],
    settings: Settings,
    threads: int,
    spec: EmbeddingSpec,
    plan: PrecisionsPlan,
    cache: Path,
    *,
    advance: Advance = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Figures of every precision on every folder, `exact` first.

    Raises:
        BenchmarkRefused: a folder has no layout that is known.
    """
    read = [read_folder(folder, plan.limit) for folder in folders]
    pools: dict[str, list[Pool]] = {}
    ran: dict[str, str] = {}
    for precision in (EXACT, *plan.precisions):
        with closing(Embedders(settings.model_copy(update={"precision": precision}), threads)) as embedders:
            pools[precision] = []
            for folder in read:
                say(f"{folder.name}: {precision}")
                pool, embedder = embed_files(folder.files(), embedders, spec, cache, advance)
                pools[precision].append(pool)
                ran[precision] = f"{embedder.runtime.engine} {embedder.runtime.precision}"
                identity = embedder.identity
    rows = []
    for place, folder in enumerate(read):
        judge = pools[EXACT][place]
        near = nearest(judge.vectors, plan.neighbours)
        for precision, measured in pools.items():
            pool = measured[place]
            rows.append(
                {
                    "data": folder.name,
                    "asked": precision,
                    "ran": ran[precision],
                    "images": len(pool.sha256),
                    "cosine_min": float((unit_rows(pool.vectors) * unit_rows(judge.vectors)).sum(axis=1).min()),
                    "recall": overlap(near, nearest(pool.vectors, plan.neighbours)),
                    "roc_auc": roc_auc_of(folder, pool),
                }
            )
    return {
        "benchmark": "precisions",
        "weights": identity.weights.partition(":")[0],
        "embedding": {**identity.describe(), "weights": identity.weights.partition(":")[0]},
        "plan": asdict(plan),
        "rows": rows,
    }


def nearest(vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows of the k nearest others of every row, by cosine, in no order; all others where there are fewer.

    Memory: 1024 x N float32 at a time.
    """
    units = unit_rows(vectors)
    found = np.empty((len(units), min(k, len(units) - 1)), np.int64)
    for start in range(0, len(units), BLOCK):
        near = units[start : start + BLOCK] @ units.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        found[start : start + BLOCK] = np.argpartition(-near, found.shape[1] - 1, axis=1)[:, : found.shape[1]]
    return found


def overlap(right: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Mean share of the right ones that were found.

    >>> overlap(np.array([[1, 2], [0, 2]]), np.array([[2, 3], [2, 0]]))
    0.75
    """
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(right, found, strict=True)]))


def precisions_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    k = found["plan"]["neighbours"]
    head = ["data", "asked for", "what ran", f"recall@{k}", "least cosine", "ROC-AUC", "change"]
    exact = {one["data"]: one["roc_auc"] for one in found["rows"] if one["asked"] == EXACT}
    rows = [
        [
            one["data"],
            one["asked"],
            one["ran"],
            percent(one["recall"]),
            f"{one['cosine_min']:.6f}",
            percent(one["roc_auc"]),
            f"{100 * (one['roc_auc'] - exact[one['data']]):+.2f}",
        ]
        for one in found["rows"]
    ]
    return [
        f"Recall: the share of each image's {k} nearest others under `exact` that are among its {k} nearest. ROC-AUC: "
        "`dn2`, k = 2, cosine, one class normal and all others strange, mean over the classes, in percent.",
        "",
        *table(head, rows),
    ]
