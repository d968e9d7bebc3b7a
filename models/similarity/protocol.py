"""The fair protocol: the same trunk, batches, budget and number of trials for every loss; test classes looked at once.

Musgrave, Belongie, Lim 2020, arXiv:2003.08505: settings are chosen by MAP@R over folds of classes, in each of which the
classes that validate are others than those learnt from; classes that nothing was chosen or learnt by then tell what it
is worth, each fold's embedding alone (separated) and all side by side (concatenated), over several seeds.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from models.contract import EmbeddingReport, Progress
from models.projection import Projection
from models.similarity.labelled import Classes, Labelled, classes_apart
from models.similarity.losses import Loss, Miner, drawn_settings
from models.similarity.retrieval import Figures, figures
from models.similarity.training import Division, Recipe, Trained, side_by_side, train_head
from models.training import part_of, seeded

CONFIDENCE = 0.95
MakeDivision = Callable[[int], Division]
"""From a seed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and at what budget."""

    method: str
    losses: tuple[Loss, ...]
    miner: Miner
    trials: int
    folds: int
    test_share: float
    seeds: int
    width: int
    hidden: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The embedding that was chosen, the one that was measured, and the figures."""

    projection: Projection
    report: EmbeddingReport


def learn(
    images: Labelled,
    plan: Plan,
    *,
    seed: int,
    make_division: MakeDivision | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """The embedding whose settings did best on the folds, with its figures on the test classes before and after.

    With fewer than four classes that are no test classes nothing can be chosen by folds: the usual settings are taken,
    and one head learns from all of them. With fewer than four classes in all there are no figures.

    Raises:
        ParameterInvalid: a loss is not finite.
    """
    apart = classes_apart(len(images.names), test_share=plan.test_share, folds=plan.folds)
    parts = max(1, len(apart.folds))
    trials = plan.trials * len(plan.losses) if apart.folds else 1
    trainings = parts * (trials + plan.seeds - 1)
    done = 0

    def trained(recipe: Recipe, run: int) -> list[Trained]:
        nonlocal done
        found = []
        for fold in range(parts):
            own = (seed * 7919 + run) * 101 + fold
            learnt = images.of(apart.learnt(fold) if apart.folds else apart.development)
            found.append(
                train_head(
                    learnt,
                    images.of(apart.folds[fold]) if apart.folds else None,
                    recipe,
                    seed=own,
                    division=None if make_division is None else make_division(own),
                    progress=part_of(progress, done / trainings, (done + 1) / trainings),
                )
            )
            done += 1
        return found

    chosen, heads, compared = _chosen(plan, bool(apart.folds), seed, trained)
    runs = [heads, *(trained(chosen, run) for run in range(1, plan.seeds))]
    projection = side_by_side(heads)
    return Outcome(projection, _report(images, apart, plan, chosen, runs, compared))


def _chosen(
    plan: Plan, has_folds: bool, seed: int, trained: Callable[[Recipe, int], list[Trained]]
) -> tuple[Recipe, list[Trained], dict[str, Any]]:
    """The best recipe with what it learnt, and the best trial of each loss."""
    compared: dict[str, Any] = {}
    best: tuple[float, Recipe, list[Trained]] | None = None
    for loss in plan.losses if has_folds else plan.losses[:1]:
        generator = seeded(seed)  # every loss draws its trials from the same chance
        for trial in range(plan.trials if has_folds else 1):
            settings = drawn_settings(loss, trial, generator)
            recipe = Recipe(loss, plan.miner, settings, plan.width, plan.hidden, plan.epochs, plan.method)
            heads = trained(recipe, 0)
            validated = [one.map_at_r for one in heads if one.map_at_r is not None]
            value = float(np.mean(validated)) if validated else -math.inf
            if validated and value > compared.get(str(loss), {"map_at_r": -math.inf})["map_at_r"]:
                compared[str(loss)] = {"map_at_r": value, "settings": settings}
            if best is None or value > best[0]:
                best = (value, recipe, heads)
    assert best is not None
    return best[1], best[2], compared


def _report(
    images: Labelled, apart: Classes, plan: Plan, chosen: Recipe, runs: list[list[Trained]], compared: dict[str, Any]
) -> EmbeddingReport:
    details: dict[str, Any] = {
        "loss": str(chosen.loss),
        "settings": chosen.settings,
        "folds": len(apart.folds),
        "trials": plan.trials if apart.folds else 1,
        "validation": compared,
        "classes": len(images.names),
        "images": len(images.classes),
        "test_classes": len(apart.test),
        "best_epochs": [one.best_epoch for one in runs[0]],
    }
    if not apart.test:
        return EmbeddingReport(before={}, after={}, better=None, details=details)
    test = images.of(apart.test)
    details["test_images"] = len(test.classes)
    before = figures(test.vectors, test.classes)
    after = [figures(side_by_side(run).apply(test.vectors), test.classes) for run in runs]
    separated = [figures(one.projection.apply(test.vectors), test.classes) for run in runs for one in run]
    interval = _interval([one.map_at_r for one in after])
    details |= {"separated": _mean(separated), "seeds": plan.seeds, "map_at_r_over_seeds": interval}
    is_better = after[0].map_at_r > before.map_at_r and (interval is None or interval["low"] > before.map_at_r)
    return EmbeddingReport(before=asdict(before), after=asdict(after[0]), better=is_better, details=details)


def _mean(found: list[Figures]) -> dict[str, float]:
    return {name: float(np.mean([asdict(one)[name] for one in found])) for name in asdict(found[0])}


def _interval(values: list[float]) -> dict[str, float] | None:
    """Mean over seeds with its 95 % interval; None for one seed, which tells nothing of the others."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return {"mean": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}
