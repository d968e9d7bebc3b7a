"""Scoring images against a collection's bank."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bodies import Upload
from app.compressed import scorer_of
from app.core import Core
from app.errors import Conflict, Invalid, NotFound, item_problem
from app.scoring.schemas import ScoreParameters
from app.shelf import CollectionState, ImageEntry
from index import Neighbours
from models.errors import ModelsError
from models.judging import Calibration, anomalous, benjamini_hochberg, make_calibration, p_values

LIVE_SCORER = "dn2"  # follows the bank as it changes; every other scorer is fitted by a job


@dataclass(frozen=True, slots=True)
class Vectors:
    """Images turned into vectors: which places of the request they fill, and what went wrong at the others."""

    vectors: NDArray[np.float32]
    places: list[int]
    problems: dict[int, dict[str, Any]]
    stored: list[ImageEntry | None]  # for each vector, the stored image it came from


def score_images(
    core: Core, name: str, uploads: Sequence[Upload], parameters: ScoreParameters
) -> tuple[dict[str, Any], int]:
    """Scores, p-values and verdicts of uploaded or stored images, in order, with the status (207 when some failed).

    The score of an image depends on the image and the bank alone, never on what else is in the request. A stored image
    is scored against the bank without itself.
    """
    state = core.shelf.get(name, parameters.after)
    _check_scorer(state, parameters)
    images = vectors_of(core, state, uploads, parameters.ids)
    with state.lock.read():
        scorer = scorer_of(state)
        k = parameters.k or state.settings.k
        shown = state.settings.neighbours if parameters.neighbours is None else parameters.neighbours
        with state.calibrating:
            scores_of_normals = scorer.calibration(k).scores
        calibration = make_calibration(
            scores_of_normals, parameters.false_alarm_rate or state.settings.false_alarm_rate
        )
        results: list[dict[str, Any]] = [{} for _ in range(len(images.places) + len(images.problems))]
        for place, fault in images.problems.items():
            results[place] = {"problem": fault}
        if images.places:
            exclude = np.array([-1 if one is None else one.pk for one in images.stored], np.int64)
            found = scorer.score(images.vectors, k=k, neighbours=shown, exclude=exclude)
            p = p_values(found.score, scores_of_normals) if calibration.n else None
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


def vectors_of(core: Core, state: CollectionState, uploads: Sequence[Upload], ids: Sequence[str] | None) -> Vectors:
    """Vectors of uploaded files or of stored images; one bad file is a problem in its place, the others go on."""
    if bool(uploads) == bool(ids):
        raise Invalid(
            "Send images, or `ids` of stored ones; one of the two.",
            "no_images" if not uploads else "conflicting_parameters",
        )
    problems: dict[int, dict[str, Any]] = {}
    places: list[int] = []
    if ids:
        entries: list[ImageEntry | None] = []
        with state.lock.read():
            for place, image_id in enumerate(ids):
                try:
                    entries.append(state.entry(image_id))
                    places.append(place)
                except NotFound as error:
                    problems[place] = item_problem(error)
            vectors = state.vectors([entry.pk for entry in entries if entry is not None])
        return Vectors(vectors, places, problems, entries)
    embedder = core.embedders.get(core.embedders.specification(state.embedding))
    prepared = core.embedders.prepare(embedder.embedder, [upload.data for upload in uploads])
    good = []
    for place, image in enumerate(prepared):
        if isinstance(image, ModelsError):
            problems[place] = item_problem(image)
        else:
            good.append(image)
            places.append(place)
    vectors = core.embedders.embed(embedder, good) if good else np.empty((0, state.width), np.float32)
    return Vectors(vectors, places, problems, [None] * len(good))


def show_neighbours(state: CollectionState, found: Neighbours, row: int) -> list[dict[str, Any]]:
    """The neighbours of one query as answers show them, nearest first."""
    return [
        {"id": entry.image_id, "distance": float(distance), "metadata": entry.metadata}
        for pk, distance in zip(found.ids[row], found.distances[row], strict=True)
        if (entry := state.entries.get(int(pk))) is not None
    ]


def show_calibration(calibration: Calibration, note: dict[str, Any] | None) -> dict[str, Any]:
    """What the verdict promises: on how many images it rests, the rate it supports, and what biases it."""
    return {**asdict(calibration), "biased": note}


def _check_scorer(state: CollectionState, parameters: ScoreParameters) -> None:
    if parameters.scorer != LIVE_SCORER:
        raise Conflict(
            f"Scorer `{parameters.scorer}` is not fitted on `{state.name}`; GET /v1/scorers lists the scorers, "
            f"`{LIVE_SCORER}` is always ready.",
            "scorer_not_fitted",
        )
    if parameters.heatmap:
        raise Invalid(
            f"`heatmap`: scorer `{LIVE_SCORER}` judges the whole image and gives no heat map; ask without it.",
            "heatmap_not_offered",
        )
