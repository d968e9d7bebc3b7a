"""The score of a set by the scores of its images, pooled, and calibrated on sets of images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.collection_state import CollectionState
from app.compressed import CompressedScorer, scorer_of
from app.core import Core
from app.errors import Invalid
from app.fitted_shelf import LoadedFit
from app.groups.kept import kept
from app.groups.members import held
from app.groups.schemas import GroupScoreParameters
from app.scoring.fitted import fit_of, scores_by_fit, took_part
from app.scoring.images import Vectors, show_calibration
from app.scoring.schemas import ScoreParameters
from models.contract import Give
from models.judging import anomalous, make_calibration, p_values
from models.methods.dn2 import REGISTERED_MIN, LiveDN2
from models.pooling import ScorePooling, calibration_of_sets, pooled, shares, usual_score

REGISTERED_IMAGES = 500  # of registered sets that are scored: some 2 s of two cores with 100,000 images in the bank


@dataclass(frozen=True, slots=True)
class _Normal:
    """What normal images say of a set."""

    images: NDArray[np.float32]  # (n,) scores of images
    usual: float  # what an image scores
    sets: NDArray[np.float32]  # (m,) pooled scores of sets
    reference: str  # which sets these are


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
            f"`pooling`: concat lays vectors side by side, and `{name}` gives an image a number; ask for mean, max or "
            "excess.",
            "pooling_not_offered",
        )
    _refuse_neighbours(parameters, name)
    return fit


def score_set_by_fit(
    core: Core, state: CollectionState, fit: LoadedFit, images: Vectors, parameters: GroupScoreParameters
) -> dict[str, Any]:
    """The pooled score of these images by a fit, judged against sets of as many images that the fit has not seen.

    Raises DeadlinePassed.
    """
    scores = np.array([one.image[0] for one in scores_by_fit(core, state, fit, images)], np.float32)
    of_sets = calibration_of_sets(fit.calibration, scores.size, ScorePooling(parameters.pooling), seed=fit.id)
    normal = _Normal(fit.calibration, usual_score(fit.calibration, scores), of_sets, "held_out")
    answer = _answer(state, images, scores, normal, parameters)
    for row, place in enumerate(images.places):
        entry = images.stored[row]
        if entry is not None:
            answer["members"][place]["took_part"] = took_part(fit, entry.pk)
    facts = {"revision": fit.sequence, "params": fit.parameters, "seed": fit.seed}
    return {**answer, "method": fit.card.name, "fit": facts}


def score_live_set(state: CollectionState, images: Vectors, parameters: GroupScoreParameters) -> dict[str, Any]:
    """The pooled score of these images by the scorer that follows the bank, judged against normal sets of as many.

    These are registered ones, or else drawn from the bank. Each of their images was scored without its set and its
    groups, and so are stored images of the set asked about.
    To be called with the collection's lock held. Raises Invalid, BankTooSmall, NothingToCompare.
    """
    _refuse_neighbours(parameters, "excess")
    scorer = scorer_of(state)
    k = parameters.k or state.settings.k
    size = len(images.places)

    def make() -> _Normal:
        alone = scorer.calibration(k).scores
        usual = float(np.median(alone)) if alone.size else 0.0
        in_sets, reference = _in_registered_sets(state, scorer, size, k), "registered"
        if in_sets is None:
            in_sets, reference = scorer.calibration_in_sets(size, k), "bank"
        return _Normal(alone, usual, pooled(in_sets, ScorePooling.EXCESS, usual), reference)

    normal = kept(state, parameters.pooling, size, k, make)
    found = scorer.score(images.vectors, k=k, neighbours=0, exclude=images.own_ids, is_set=True)
    return _answer(state, images, found.score, normal, parameters)


def _in_registered_sets(
    state: CollectionState, scorer: LiveDN2 | CompressedScorer, size: int, k: int
) -> NDArray[np.float32] | None:
    """Scores of the images of registered sets of a size, each without its set and its groups; None: they are too few.

    Sets whose images are all in the bank count, and of many some, drawn without regard to their scores, since they are
    searched for anew whenever the collection has changed. A compressed bank stands for their images too, so there they
    say nothing.

    Shapes: -> (n, size).
    """
    if not isinstance(scorer, LiveDN2):
        return None
    registered = [members for name in sorted(state.groups) if (members := held(state, state.groups[name])).size == size]
    if len(registered) < REGISTERED_MIN:
        return None
    sets = np.stack(registered)
    sets = sets[np.isin(sets, scorer.bank.ids()).all(axis=1)]
    drawn = np.random.default_rng(0).permutation(len(sets))[: max(REGISTERED_MIN, REGISTERED_IMAGES // size)]
    found = [one for one in scorer.scores_in_sets(list(sets[drawn]), k) if one is not None]
    return np.stack(found) if len(found) >= REGISTERED_MIN else None


def _answer(
    state: CollectionState,
    images: Vectors,
    scores: NDArray[np.float32],
    normal: _Normal,
    parameters: GroupScoreParameters,
) -> dict[str, Any]:
    """What is said of a set whose images have these scores."""
    pooling = ScorePooling(parameters.pooling)
    size = len(images.places)
    score = pooled(scores[None], pooling, normal.usual)
    calibration = make_calibration(normal.sets, parameters.false_alarm_rate or state.settings.false_alarm_rate)
    verdict = anomalous(score, calibration)
    parts = shares(scores, pooling, normal.usual)
    p = p_values(scores, normal.images) if normal.images.size else None
    members: list[dict[str, Any]] = [{} for _ in range(size + len(images.problems))]
    for place, fault in images.problems.items():
        members[place] = {"problem": fault}
    for row, place in enumerate(images.places):
        entry = images.stored[row]
        members[place] = {
            **({} if entry is None else {"id": entry.image_id}),
            "share": float(parts[row]),
            "score": float(scores[row]),
            "p_value": None if p is None else float(p[row]),
        }
    return {
        "scorer": parameters.scorer,
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "pooling": parameters.pooling,
        "reference": normal.reference,
        "sequence": state.sequence,
        "calibration": show_calibration(calibration, state.bank_note),
        "score": float(score[0]),
        "p_value": float(p_values(score, normal.sets)[0]) if calibration.n else None,
        "anomalous": None if verdict is None else bool(verdict[0]),
        "neighbours": [],
        "members": members,
    }


def _refuse_neighbours(parameters: GroupScoreParameters, what: str) -> None:
    if parameters.neighbours:
        raise Invalid(
            f"`neighbours`: `{what}` scores the images of a set and compares it with no other; leave it out.",
            "neighbours_not_offered",
        )
