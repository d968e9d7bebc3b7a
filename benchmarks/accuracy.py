"""`oddity bench accuracy`: ranking figures and kept promises on a folder of labelled images."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.embedders import Embedders
from benchmarks.embedding import Advance, Pool, embed_files
from benchmarks.errors import BenchmarkRefused, TooFewSets
from benchmarks.folders import Case, Layout, cases, read_layout
from benchmarks.protocols import Rows, measure_contaminated, measure_images, measure_sets, plant
from index import Metric
from models.backbones.embedder import EmbeddingSpec
from models.errors import BankTooSmall
from models.methods.dn2 import DN2Params

PROTOCOLS = ("images", "sets", "contaminated")
# A figure's place in the seed: adding a protocol or a case changes no other figure.
BANK_DRAW, SETS_DRAW, PLANT_DRAW = 0, 1, 2
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AccuracyPlan:
    """What to measure."""

    protocols: tuple[str, ...] = PROTOCOLS
    k: int = 2
    metric: str = "cosine"
    normalize: bool = False
    bank: int | None = None  # normal images of each class, drawn; None: all
    limit: int | None = None  # files of each kind in each part; None: all
    seed: int = 0
    rates: tuple[float, ...] = (0.01, 0.05, 0.1)
    together: int = 1
    normal: tuple[str, ...] = ()
    set_sizes: tuple[int, ...] = (5, 10)
    fraction: float = 0.2
    poolings: tuple[str, ...] = ("mean", "max", "concat", "excess")
    contamination: float = 0.1
    dropped: float = 0.15


def measure_accuracy(
    folder: Path,
    embedders: Embedders,
    spec: EmbeddingSpec,
    plan: AccuracyPlan,
    cache: Path,
    *,
    advance: Advance | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Every figure of the plan on one folder; the same seed and files give the same figures, seconds apart.

    Raises:
        BenchmarkRefused: the folder or the plan does not allow it.
    """
    unknown = sorted(set(plan.protocols) - set(PROTOCOLS))
    if unknown or not plan.protocols:
        raise BenchmarkRefused(f"`protocol` must be among {', '.join(PROTOCOLS)}; got {', '.join(unknown) or 'none'}.")
    if plan.metric not in tuple(Metric):
        raise BenchmarkRefused(f"`metric` must be one of {', '.join(Metric)}; got {plan.metric}.")
    layout = read_layout(folder, plan.limit)
    chosen = cases(layout, together=plan.together, normal=plan.normal)
    started = time.perf_counter()
    pool, embedder = embed_files(layout.files(), embedders, spec, cache, advance)
    embedded = time.perf_counter()
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.protocols}
    for case in chosen:
        say(f"{layout.name}: {case.name}")
        for name in plan.protocols:
            measured[name].extend(_measure(name, layout, case, pool, plan))
    return {
        "benchmark": "accuracy",
        "weights": embedder.identity.weights.partition(":")[0],
        "embedding": {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]},
        "runtime": embedder.runtime.describe(),
        "data": _described(layout, pool),
        "plan": asdict(plan),
        "protocols": {name: {"cases": found, "means": means(found)} for name, found in measured.items()},
        "seconds": {"embedding": embedded - started, "measuring": time.perf_counter() - embedded},
    }


def means(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the cases, one entry for each variant (size and pooling of sets)."""
    variants: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        if "skipped" not in one:
            variants.setdefault(one["variant"], []).append(one)
    return [{"variant": variant, "cases": len(many), **_mean(many)} for variant, many in variants.items()]


def recovered(clean: float, contaminated: float, cleaned: float) -> float | None:
    """The share of what planted strangers cost that cleaning brings back; None when they cost nothing."""
    lost = clean - contaminated
    return (cleaned - contaminated) / lost if lost > 0 else None


def _measure(protocol: str, layout: Layout, case: Case, pool: Pool, plan: AccuracyPlan) -> list[dict[str, Any]]:
    params = DN2Params(k=plan.k, metric=Metric(plan.metric), normalize=plan.normalize)
    bank = _bank(layout, case, pool, plan)
    normal, strangers = _test(layout, case, pool)
    facts = {"case": case.name, "test_images_in_bank": int(np.isin(normal, bank).sum())}
    if protocol == "images":
        return [{**facts, "variant": "", **measure_images(pool, bank, normal, strangers, params, plan.rates)}]
    if protocol == "sets":
        return [{**facts, **one} for one in _measure_sets(pool, case, bank, normal, strangers, params, plan)]
    planted, strangers = _planted(layout, case, pool, plan, bank, strangers)
    found = measure_contaminated(pool, bank, planted, normal, strangers, params, plan.rates, dropped=plan.dropped)
    return [{**facts, "variant": "", **found}]


def _measure_sets(
    pool: Pool, case: Case, bank: Rows, normal: Rows, strangers: Rows, params: DN2Params, plan: AccuracyPlan
) -> Iterator[dict[str, Any]]:
    """Each size and pooling; sizes for which there are too few test images say so in place of figures."""
    for size in plan.set_sizes:
        for pooling in plan.poolings:
            variant = f"{size} images, {pooling}"
            random = _random(plan, SETS_DRAW, case)
            try:
                found = measure_sets(
                    pool,
                    bank,
                    normal,
                    strangers,
                    params,
                    plan.rates,
                    size=size,
                    fraction=plan.fraction,
                    pooling=pooling,
                    random=random,
                )
                yield {"variant": variant, **found}
            except (TooFewSets, BankTooSmall) as error:
                yield {"variant": variant, "skipped": str(error)}


def _bank(layout: Layout, case: Case, pool: Pool, plan: AccuracyPlan) -> Rows:
    """Normal training images; `plan.bank` of each class, drawn under the seed."""
    random = _random(plan, BANK_DRAW, case)
    parts = []
    for kind in sorted(case.normal):
        rows = pool.rows(layout.train.get(kind, ()))
        if plan.bank is not None and plan.bank < rows.size:
            rows = np.sort(random.choice(rows, plan.bank, replace=False))
        parts.append(rows)
    return _distinct(np.concatenate(parts))


def _test(layout: Layout, case: Case, pool: Pool) -> tuple[Rows, Rows]:
    normal = pool.rows(file for kind in sorted(case.normal) for file in layout.test.get(kind, ()))
    strangers = pool.rows(file for kind in sorted(set(layout.test) - case.normal) for file in layout.test[kind])
    return normal, np.setdiff1d(strangers, normal)


def _planted(
    layout: Layout, case: Case, pool: Pool, plan: AccuracyPlan, bank: Rows, strangers: Rows
) -> tuple[Rows, Rows]:
    """Strangers for the bank, and those left to test with.

    They come from the other classes' training images; where a folder has none (inspection), from the test images,
    which then are not tested with.
    """
    random = _random(plan, PLANT_DRAW, case)
    part = layout.train if set(layout.train) - case.normal else layout.test
    others = [np.setdiff1d(pool.rows(part[kind]), bank) for kind in sorted(set(part) - case.normal)]
    planted = plant(bank, others, plan.contamination, random)
    return planted, np.setdiff1d(strangers, planted)


def _random(plan: AccuracyPlan, draw: int, case: Case) -> np.random.Generator:
    return np.random.default_rng([plan.seed, draw, *case.name.encode()])


def _distinct(rows: Rows) -> Rows:
    return np.array(list(dict.fromkeys(rows.tolist())), np.int64)


def _described(layout: Layout, pool: Pool) -> dict[str, Any]:
    return {
        "folder": layout.name,
        "layout": layout.layout,
        "train": {kind: len(files) for kind, files in layout.train.items()},
        "test": {kind: len(files) for kind, files in layout.test.items()},
        "distinct_images": len(pool.sha256),
        "refused": {str(path): reason for path, reason in pool.refused.items()},
    }


def _mean(many: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if "contaminated" in many[0]:
        banks = {name: _mean([one[name] for one in many]) for name in ("clean", "contaminated", "cleaned")}
        back = recovered(*(banks[name]["roc_auc"] for name in ("clean", "contaminated", "cleaned")))
        return {**banks, "recovered": back}
    figures = {name: _average(one[name] for one in many) for name in ("roc_auc", "average_precision", "fpr_at_95_tpr")}
    rates = [
        {
            "requested": many[0]["rates"][place]["requested"],
            **{name: _average(one["rates"][place][name] for one in many) for name in ("promised", "observed", "found")},
        }
        for place in range(len(many[0]["rates"]))
    ]
    return {**figures, "rates": rates}


def _average(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
