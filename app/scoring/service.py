"""Scoring images against a collection's bank."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.ahead import Ahead
from app.bodies import Upload
from app.compressed import scorer_of
from app.core import Core
from app.errors import Invalid
from app.observe import stage
from app.scoring.fitted import fit_of, score_with_fit
from app.scoring.images import Vectors, joined, show_calibration, show_neighbours, vectors_of
from app.scoring.noting import note_answer
from app.scoring.schemas import ScoreParameters
from app.shelf import CollectionState
from models.judging import Calibration, anomalous, benjamini_hochberg, make_calibration, p_values
from models.methods.dn2 import CalibrationScores

BORDERS_KEPT = 16  # of one k: callers who ask at many rates do not fill the memory
LIVE_SCORER = "dn2"  # follows the bank as it changes; every other scorer is fitted by a job


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


def score_together(
    core: Core, name: str, parameters: ScoreParameters, several: list[Ahead]
) -> list[tuple[dict[str, Any], int] | None]:
    """What `score_images` answers to each of several requests of one image with the same parameters.

    None where the collection needs another network by now. For requests that `may_go_together`.
    """
    state = core.shelf.get(name)
    images = joined(core, state, several)
    if images is None:
        return [None] * len(several)
    answer, _ = score_live(state, images, parameters)
    note_answer(core, state, answer)
    results = answer.pop("results")
    return [({**answer, "results": [one]}, 207 if "problem" in one else 200) for one in results]


def may_go_together(parameters: ScoreParameters) -> bool:
    """Whether an answer depends on nothing but image and bank, so that others may be scored with it."""
    is_alone = parameters.heatmap or parameters.control != "none" or parameters.after is not None
    return parameters.scorer == LIVE_SCORER and parameters.ids is None and not is_alone


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
            with stage("score"):
                found = scorer.score(images.vectors, k=k, neighbours=shown, exclude=images.own_ids)
                ranks = p_values(found.score, scores_of_normals, is_ascending=True)
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
