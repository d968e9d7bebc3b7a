"""Scoring images against a collection's bank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bodies import Upload
from app.combining import rows_of
from app.compressed import CompressedScorer, scorer_of
from app.core import Core
from app.errors import Invalid
from app.observe import stage
from app.scoring.fitted import fit_of, score_with_fit
from app.scoring.images import Vectors, show_calibration, show_neighbours, vectors_of
from app.scoring.noting import note_answer
from app.scoring.schemas import ScoreParameters
from app.shelf import CollectionState
from models.judging import Calibration, anomalous, benjamini_hochberg, make_calibration, p_values
from models.methods.dn2 import CalibrationScores, DN2Scores, LiveDN2

BORDERS_KEPT = 16  # of one k: callers who ask at many rates do not fill the memory
TOGETHER_IMAGES = 16  # of a request, at most, that is scored together with others: a large one would hold them up
LIVE_SCORER = "dn2"  # follows the bank as it changes; every other scorer is fitted by a job


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks of the scorer, whose state it holds."""

    scorer: LiveDN2 | CompressedScorer
    vectors: NDArray[np.float32]
    k: int
    neighbours: int
    exclude: NDArray[np.int64] | None
    scores_of_normals: NDArray[np.float64]


def score_images(
    core: Core, name: str, uploads: Sequence[Upload], parameters: ScoreParameters
) -> tuple[dict[str, Any], int]:
    """Scores, p-values and verdicts of uploaded or stored images, in order, with the status (207 when some failed).

    The score of an image depends on the image and the bank alone, never on what else is in the request. A stored image
    is scored against the bank without itself.
    """
    state = core.shelf.get(name, parameters.after)
    if parameters.scorer != LIVE_SCORER:
        fit = fit_of(core, state, parameters)
        images = vectors_of(core, state, uploads, parameters.ids)
        answer, status = score_with_fit(core, state, fit, images, parameters)
    elif parameters.heatmap:
        raise Invalid(
            f"`heatmap`: scorer `{LIVE_SCORER}` judges the whole image and gives no heat map; ask without it.",
            "heatmap_not_offered",
        )
    else:
        answer, status = score_live(state, vectors_of(core, state, uploads, parameters.ids), parameters)
    if uploads:  # what is stored is not news
        note_answer(core, state, answer)
    return answer, status


def score_live(state: CollectionState, images: Vectors, parameters: ScoreParameters) -> tuple[dict[str, Any], int]:
    """The same by the scorer that follows the bank."""
    with state.lock.read():
        scorer = scorer_of(state)
        k = parameters.k or state.settings.k
        shown = state.settings.neighbours if parameters.neighbours is None else parameters.neighbours
        with stage("calibrate"), state.calibrating:
            computed = scorer.calibration(k)
        rate = parameters.false_alarm_rate or state.settings.false_alarm_rate
        calibration, scores_of_normals = _border(state, k, computed, rate)
        results: list[dict[str, Any]] = [{} for _ in range(len(images.places) + len(images.problems))]
        for place, fault in images.problems.items():
            results[place] = {"problem": fault}
        if images.places:
            exclude = None
            if any(images.stored):
                exclude = np.array([-1 if one is None else one.pk for one in images.stored], np.int64)
            with stage("score"):
                asked = _Asked(scorer, images.vectors, k, shown, exclude, scores_of_normals)
                if exclude is None and len(images.places) <= TOGETHER_IMAGES:
                    alike = (id(scorer), k, shown, id(scores_of_normals))
                    found, ranks = state.scores.run(alike, asked, _scored_together)
                else:
                    found, ranks = _scored(asked)
            p = ranks if calibration.n else None
            verdicts = anomalous(found.score, calibration)
            flagged = None
            if parameters.control == "fdr" and p is not None:
                flagged = benjamini_hochberg(p, calibration.requested)
            for row, place in enumerate(images.places):
                entry = images.stored[row]
                results[place] = {
                    **({} if entry is None else {"id": entry.image_id}),
                    "score": float(found.score[row]),
                    "p_value": None if p is None else float(p[row]),
                    "anomalous": None if verdicts is None else bool(verdicts[row]),
                    **({} if flagged is None else {"flagged": bool(flagged[row])}),
                    "neighbours": show_neighbours(state, found.neighbours, row),
                    "known_anomaly": next(iter(show_neighbours(state, found.known, row)), None),
                }
        answer = {
            "scorer": parameters.scorer,
            "fingerprint": state.fingerprint,
            "weights": state.weights,
            "k": k,
            "metric": state.settings.metric,
            "sequence": state.sequence,
            "calibration": show_calibration(calibration, state.bank_note),
            "results": results,
        }
    return answer, 207 if images.problems else 200


def _scored(asked: _Asked) -> tuple[DN2Scores, NDArray[np.float64]]:
    """The scores, and their p-values among the scores of normal images."""
    found = asked.scorer.score(asked.vectors, k=asked.k, neighbours=asked.neighbours, exclude=asked.exclude)
    return found, p_values(found.score, asked.scores_of_normals, is_ascending=True)


def _scored_together(several: list[_Asked]) -> list[tuple[DN2Scores, NDArray[np.float64]]]:
    """The same for requests that differ in their images alone, none of them stored ones; no request changes another."""
    if len(several) == 1:
        return [_scored(several[0])]
    vectors = [one.vectors for one in several]
    found, ranks = _scored(replace(several[0], vectors=np.concatenate(vectors)))
    return [(found.part(rows), ranks[rows]) for rows in rows_of(vectors)]


def _border(
    state: CollectionState, k: int, computed: CalibrationScores, rate: float
) -> tuple[Calibration, NDArray[np.float64]]:
    """The border at a rate, and the calibration scores in ascending order: worked out once and not by every request."""
    place = ("borders", k)
    kept: tuple[CalibrationScores, NDArray[np.float64], dict[float, Calibration]] | None = state.cache.get(place)
    if kept is None or kept[0] is not computed:
        kept = state.cache[place] = (computed, np.sort(computed.scores.astype(np.float64)), {})
    _, ascending, borders = kept
    border = borders.get(rate)
    if border is None:
        if len(borders) >= BORDERS_KEPT:
            borders.clear()
        border = borders[rate] = make_calibration(ascending, rate)
    return border, ascending
