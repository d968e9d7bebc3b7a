"""The score of a set by a fitted scorer: the scores of its images, pooled, and calibrated on sets of images."""

from typing import Any

import numpy as np

from app.collection_state import CollectionState
from app.core import Core
from app.errors import Invalid
from app.fitted_shelf import LoadedFit
from app.groups.schemas import GroupScoreParameters
from app.scoring.fitted import fit_of, scores_by_fit, took_part
from app.scoring.images import Vectors, show_calibration
from app.scoring.schemas import ScoreParameters
from models.contract import Give
from models.judging import anomalous, make_calibration, p_values
from models.pooling import ScorePooling, calibration_of_sets, pooled, shares


def fit_for_sets(core: Core, state: CollectionState, parameters: GroupScoreParameters) -> LoadedFit:
    """The fit that serves under the name asked for. Raises Conflict, and Invalid for what it cannot do with a set."""
    name = parameters.scorer
    fit = fit_of(core, state, ScoreParameters(scorer=name, k=parameters.k))
    if Give.IMAGE_SCORE not in fit.card.gives.outputs:
        raise Invalid(
            f"`scorer`: `{name}` gives images no score that a set's could be made of; leave it out, or name another.",
            "group_score_not_offered",
        )
    if parameters.pooling == "concat":
        raise Invalid(
            f"`pooling`: concat lays vectors side by side, and `{name}` gives an image a number; ask for mean or max.",
            "pooling_not_offered",
        )
    if parameters.neighbours:
        raise Invalid(
            f"`neighbours`: `{name}` compares a set with no other sets; leave it out.", "neighbours_not_offered"
        )
    return fit


def score_set(
    core: Core, state: CollectionState, fit: LoadedFit, images: Vectors, parameters: GroupScoreParameters
) -> dict[str, Any]:
    """The pooled score of these images, judged against disjoint sets of as many images that the fit has not seen.

    Raises DeadlinePassed.
    """
    pooling = ScorePooling(parameters.pooling)
    size = len(images.places)
    raw = np.array([one.image[0] for one in scores_by_fit(core, state, fit, images)], np.float32)
    score = pooled(raw[None], pooling)
    of_sets = calibration_of_sets(fit.calibration, size, pooling, seed=fit.id)
    calibration = make_calibration(of_sets, parameters.false_alarm_rate or state.settings.false_alarm_rate)
    verdict = anomalous(score, calibration)
    parts = shares(raw, fit.calibration, pooling)
    p = p_values(raw, fit.calibration) if fit.calibration.size else None
    members: list[dict[str, Any]] = [{} for _ in range(size + len(images.problems))]
    for place, fault in images.problems.items():
        members[place] = {"problem": fault}
    for row, place in enumerate(images.places):
        entry = images.stored[row]
        members[place] = {
            **({} if entry is None else {"id": entry.image_id, "took_part": took_part(fit, entry.pk)}),
            "share": float(parts[row]),
            "score": float(raw[row]),
            "p_value": None if p is None else float(p[row]),
        }
    return {
        "scorer": parameters.scorer,
        "method": fit.card.name,
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "pooling": parameters.pooling,
        "reference": "held_out",
        "sequence": state.sequence,
        "fit": {"revision": fit.sequence, "params": fit.parameters, "seed": fit.seed},
        "calibration": show_calibration(calibration, state.bank_note),
        "score": float(score[0]),
        "p_value": float(p_values(score, of_sets)[0]) if calibration.n else None,
        "anomalous": None if verdict is None else bool(verdict[0]),
        "neighbours": [],
        "members": members,
    }
