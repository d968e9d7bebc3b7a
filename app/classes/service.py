"""Which class is this? Probabilities, nearest examples, and whether it is none of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.bodies import Upload
from app.classes.classifier import current, known
from app.classes.schemas import ClassifyParameters
from app.collection_state import CollectionState
from app.core import Core
from app.scoring.images import Vectors, show_calibration, vectors_of
from models.judging import VERDICT_MIN, anomalous, make_calibration, p_values
from models.methods.few_shot_lr import METHOD, Classified, FittedClasses


def is_behind(core: Core, name: str, after: int | None) -> bool:
    """Whether the classifier must be fitted before an answer. Raises NotFound; Conflict when there is no class."""
    state = core.shelf.get(name, after)
    with state.lock.read():
        return known(state) is None


def catch_up(core: Core, name: str, after: int | None) -> None:
    """Fit the classifier to the examples as they are, unless somebody did meanwhile."""
    current(core.shelf.get(name, after))


def classify(
    core: Core, name: str, uploads: Sequence[Upload], parameters: ClassifyParameters
) -> tuple[dict[str, Any], int]:
    """The class of uploaded or stored images, in order, with the status (207 when some failed).

    What is said of an image depends on the image and the examples alone, never on what else is in the request. An
    image that is an example itself is judged without itself.
    """
    state = core.shelf.get(name, parameters.after)
    return classify_vectors(state, vectors_of(core, state, uploads, parameters.ids), parameters)


def classify_vectors(
    state: CollectionState, images: Vectors, parameters: ClassifyParameters
) -> tuple[dict[str, Any], int]:
    """The same of images whose vectors are known."""
    fitted, sequence = current(state)
    shown = state.settings.neighbours if parameters.neighbours is None else parameters.neighbours
    found = fitted.classify(images.vectors, nearest=shown, exclude=images.own_ids)
    calibration = make_calibration(
        fitted.calibration_scores, parameters.false_alarm_rate or state.settings.false_alarm_rate
    )
    p = p_values(found.score, fitted.calibration_scores) if calibration.n else None
    verdicts = anomalous(found.score, calibration)
    results: list[dict[str, Any]] = [{} for _ in range(len(images.places) + len(images.problems))]
    for place, fault in images.problems.items():
        results[place] = {"problem": fault}
    with state.lock.read():
        for row, place in enumerate(images.places):
            verdict = None if verdicts is None else bool(verdicts[row])
            results[place] = {
                **_own_id(images, row),
                **_named(fitted, found, row, verdict, parameters.top),
                "unknown": verdict,
                "p_value": None if p is None else float(p[row]),
                "score": float(found.score[row]),
                "nearest": _nearest(state, fitted, found, row),
            }
    answer = {
        "scorer": METHOD.name,
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "metric": "cosine",
        "sequence": sequence,
        "classes": len(fitted.labels),
        "calibration": {
            **show_calibration(calibration, None),
            "single_image_classes": len(fitted.single()),
            "probabilities": {
                "n": fitted.sharpness_rows,
                "supported": fitted.sharpness_rows >= VERDICT_MIN,
                "temperature": 1.0 / fitted.sharpness,
            },
        },
        "results": results,
    }
    return answer, 207 if images.problems else 200


def _own_id(images: Vectors, row: int) -> dict[str, Any]:
    entry = images.stored[row]
    return {} if entry is None else {"id": entry.image_id}


def _named(fitted: FittedClasses, found: Classified, row: int, verdict: bool | None, top: int | None) -> dict[str, Any]:
    """The likeliest class, none when the image is near none; and how likely each is, likeliest first."""
    chances = found.probabilities[row]
    order = np.argsort(-chances, kind="stable")[:top]
    return {
        "label": None if verdict else fitted.labels[order[0]],
        "probabilities": {fitted.labels[number]: float(chances[number]) for number in order},
    }


def _nearest(state: CollectionState, fitted: FittedClasses, found: Classified, row: int) -> list[dict[str, Any]]:
    """The nearest examples, nearest first. One that was deleted while the answer was made is left out."""
    near = zip(found.nearest.ids[row].tolist(), found.nearest.distances[row], strict=True)
    return [
        {
            "id": entry.image_id,
            "label": fitted.label_of(pk),
            "distance": float(distance),
            "metadata": entry.metadata,
        }
        for pk, distance in near
        if (entry := state.entries.get(pk)) is not None
    ]
