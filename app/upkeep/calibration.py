"""Computing a collection's calibration afresh, as a check of the one that is kept while images come and go."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.compressed import compressed_scorer, scorer_of
from app.core import Core
from app.jobs.context import JobContext
from app.shelf import CollectionState
from app.upkeep.fresh import fresh_state
from app.upkeep.schemas import CalibrateParameters
from models.judging import make_calibration
from models.methods.dn2 import CalibrationScores

RATES = (0.001, 0.01, 0.05, 0.1)
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 20
TRIES = 5  # at meeting the serving state at the very sequence that was computed


def run_calibrate(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: the calibration from nothing but the record, what it supports, and whether the kept one equals it.

    A kept calibration that differed would be a fault of ours; the serving state is then dropped and loaded again.
    """
    parameters = CalibrateParameters.model_validate(context.parameters)
    context.progress(0, 1, "computing")
    for _ in range(TRIES):
        context.check()
        afresh = fresh_state(core, context)
        k = parameters.k or afresh.settings.k
        afresh.dn2.recalibrate()  # a file may have brought it
        computed = scorer_of(afresh).calibration(k)
        kept, state = _kept(core, afresh, k)
        if kept is not None:
            break
    context.progress(1, 1)
    return {
        "n": int(computed.scores.size),
        "k": k,
        "compressed": compressed_scorer(afresh) is not None,
        "sequence": afresh.sequence,
        "thresholds": [asdict(make_calibration(computed.scores, rate)) for rate in RATES],
        "scores": describe_scores(computed.scores),
        "kept": _compare(core, state, computed, kept),
        "biased": afresh.bank_note,
    }


def describe_scores(scores: NDArray[np.float32]) -> dict[str, Any] | None:
    """Quantiles and a histogram of calibration scores; None when there are none."""
    if scores.size == 0:
        return None
    counts, edges = np.histogram(scores.astype(np.float64), bins=BINS)
    quantiles = np.quantile(scores.astype(np.float64), QUANTILES)
    return {
        "quantiles": [{"share": share, "score": float(at)} for share, at in zip(QUANTILES, quantiles, strict=True)],
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _kept(core: Core, afresh: CollectionState, k: int) -> tuple[CalibrationScores | None, CollectionState]:
    """The serving calibration at the sequence of the fresh one; None when the collection has moved on."""
    state = core.shelf.get(afresh.name)
    with state.lock.read(), state.calibrating:
        if state.id != afresh.id or state.sequence != afresh.sequence:
            return None, state
        return scorer_of(state).calibration(k), state


def _compare(
    core: Core, state: CollectionState, computed: CalibrationScores, kept: CalibrationScores | None
) -> dict[str, Any]:
    if kept is None:
        return {
            "equal": None,
            "detail": "The collection changed too quickly to compare; the figures are of one sequence.",
        }
    if not state.is_exact:
        detail = "Search is approximate here: two calibrations may differ by what a structure misses."
        return {"equal": None, "detail": detail}
    if np.array_equal(kept.ids, computed.ids) and np.array_equal(kept.scores, computed.scores):
        return {"equal": True}
    core.shelf.forget(state)
    return {"equal": False, "detail": "The kept calibration differed and was replaced; please report this as a fault."}
