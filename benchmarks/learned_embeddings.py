"""`oddity bench embeddings`: what a learned embedding is worth on classes that it has never seen.

One folder for each class; half of the classes, by the hash of their names, are kept for the figures, and the others
teach and choose. Every installed method that learns an embedding is run with every loss asked for that it knows, at the
same budget, by the code that the service's job runs.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.embedders import Embedders
from benchmarks.embedding import Advance, embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.few_shot import class_files
from benchmarks.report import percent, table
from models.backbones.embedder import EmbeddingSpec
from models.catalog import installed
from models.contract import Give, Inputs, Need, ProjectionGiver, Reference

MEASURES = {"precision_at_1": "P@1", "r_precision": "R-precision", "map_at_r": "MAP@R"}
CLASSES_MIN = 6  # below, nothing is chosen by folds


@dataclass(frozen=True, slots=True)
class LearnedPlan:
    """What is measured, and the budget that every method gets."""

    losses: tuple[str, ...] = ("contrastive", "triplet")
    trials: int = 20
    folds: int = 4
    seeds: int = 5
    width: int = 128
    epochs: int = 20
    test_share: float = 0.5
    limit: int | None = None
    """Files of each class; None: all."""
    seed: int = 0

    def budget(self) -> dict[str, Any]:
        """Parameters that all methods share."""
        return {name: getattr(self, name) for name in ("trials", "folds", "seeds", "width", "epochs", "test_share")}


def measure_learned(
    folder: Path,
    embedders: Embedders,
    spec: EmbeddingSpec,
    plan: LearnedPlan,
    cache: Path,
    *,
    advance: Advance | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Figures before and after, for every method and loss, on a folder with one folder of images for each class.

    Raises:
        BenchmarkRefused: there are too few classes, or no method knows the losses.
    """
    files = class_files(folder, plan.limit)
    pool, embedder = embed_files([one for kind in files.values() for one in kind], embedders, spec, cache, advance)
    rows = {name: pool.rows(kind) for name, kind in files.items()}
    rows = {name: one for name, one in rows.items() if one.size >= 2}
    if len(rows) < CLASSES_MIN:
        raise BenchmarkRefused(
            f"{folder} must hold {CLASSES_MIN} classes of at least two distinct images; got {len(rows)}."
        )
    reference = Reference(
        bank=(),
        keys=np.zeros(0, np.uint64),
        labels={name: [Inputs(ids=one, vectors=pool.vectors[one])] for name, one in rows.items()},
    )
    return {
        "benchmark": "learned_embeddings",
        "weights": embedder.identity.weights.partition(":")[0],
        "embedding": {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]},
        "data": {"folder": folder.name, "classes": {name: int(one.size) for name, one in rows.items()}},
        "plan": asdict(plan),
        "methods": [_measured(name, loss, reference, plan, say) for name, loss in contenders(plan)],
    }


def contenders(plan: LearnedPlan) -> list[tuple[str, str]]:
    """Methods that learn an embedding from labelled vectors, with each loss of the plan that they know.

    Raises:
        BenchmarkRefused: there is none.
    """
    found = []
    for name, card in installed().items():
        needs = {*card.needs.required, *card.needs.either}
        if card.live or Give.EMBEDDING not in card.gives.outputs or needs - {Need.VECTORS, Need.LABELS}:
            continue
        known = installed().method(name).Params.model_fields
        if {"loss", *plan.budget()} <= set(known):
            kind = known["loss"].annotation
            found += [(name, loss) for loss in plan.losses if loss in [str(one) for one in kind or ()]]
    if not found:
        raise BenchmarkRefused(f"No installed method learns an embedding by one of {', '.join(plan.losses)}.")
    return found


def _measured(
    name: str, loss: str, reference: Reference, plan: LearnedPlan, say: Callable[[str], None]
) -> dict[str, Any]:
    say(f"{name}, {loss}")
    kind = installed().method(name)
    method = kind(kind.Params.parse(name, {**plan.budget(), "loss": loss}))
    started = time.perf_counter()
    fitted = method.fit(reference, seed=plan.seed)
    seconds = time.perf_counter() - started
    assert isinstance(fitted, ProjectionGiver)
    report = fitted.report()
    return {
        "method": name,
        "loss": loss,
        "before": dict(report.before),
        "after": dict(report.after),
        "better": report.better,
        "details": dict(report.details),
        "seconds": seconds,
    }


def learned_text(found: dict[str, Any]) -> list[str]:
    """The body of a report."""
    plan, classes = found["plan"], found["data"]["classes"]
    tested = found["methods"][0]["details"]["test_classes"]
    rows = [["untrained", "", *(percent(found["methods"][0]["before"][one]) for one in MEASURES), "", "", "", ""]]
    for one in found["methods"]:
        details = one["details"]
        interval = details["map_at_r_over_seeds"]
        rows.append(
            [
                one["method"],
                one["loss"],
                *(percent(one["after"][measure]) for measure in MEASURES),
                "" if interval is None else f"{percent(interval['low'])} to {percent(interval['high'])}",
                percent(details["separated"]["map_at_r"]),
                "yes" if one["better"] else "no",
                f"{one['seconds']:.0f}",
            ]
        )
    return [
        f"Data: {found['data']['folder']}, {sum(classes.values())} distinct images of {len(classes)} classes, "
        f"{tested} of which are measured on and nothing else. {plan['trials']} trials for each loss, {plan['folds']} "
        f"folds, {plan['seeds']} seeds, {plan['epochs']} epochs, width {plan['width']} a fold, seed {plan['seed']}.",
        "",
        "All figures are percent, on the test classes: the concatenated embedding, the 95 % interval of its MAP@R over "
        "seeds, and the mean MAP@R of the folds' embeddings alone.",
        "",
        *table(["method", "loss", *MEASURES.values(), "over seeds", "separated", "better", "seconds"], rows),
    ]
