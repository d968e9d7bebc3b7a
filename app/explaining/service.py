"""Why is this image called so? The nearest examples of every kind, and on request a map of what the answer rests on."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from app.bodies import Upload
from app.classes.classifier import example_pks
from app.compressed import scorer_of
from app.core import Core
from app.errors import Conflict, Invalid
from app.explaining.schemas import IMAGES_MAX, ExplainParameters
from app.explaining.subjects import Explained, Subject, fit_behind, gradient_of, prepared_pixels, subject_of
from app.scoring.fitted import Pictures, show_map
from app.scoring.images import Vectors, show_neighbours, vectors_of
from app.shelf import CollectionState
from index import Neighbours
from models.contract import Explainer
from models.errors import BankTooSmall, NothingToCompare
from models.heat_maps import HeatScale
from models.inputs import one_image
from models.judging import make_calibration
from models.leave_one_out import first_kept
from models.methods.explain import Explain, MapKind, blurred, mean_colour, nearest_of_classes

PROBABILITY_SCALE = HeatScale(low=0.0, border=0.25)
Classes = dict[str, NDArray[np.int64]]


def explain(
    core: Core, name: str, uploads: Sequence[Upload], parameters: ExplainParameters
) -> tuple[dict[str, Any], int]:
    """The answer of the scorer about each image, with its explanation, and the status (207 when some failed).

    Raises:
        Invalid: the scorer has no such number or no gradient, or there are too many images for maps.
        DeadlinePassed: the maps take longer than a request may.
    """
    state = core.shelf.get(name, parameters.after)
    explainer = Explain(width=state.width, params=parameters.of_map())
    if parameters.method != "examples" and max(len(uploads), len(parameters.ids or ())) > IMAGES_MAX:
        raise Invalid(
            f"`method={parameters.method}`: explains at most {IMAGES_MAX} images at a time; "
            f"got {max(len(uploads), len(parameters.ids or ()))}.",
            "too_many_images",
        )
    images = vectors_of(core, state, uploads, parameters.ids)
    subject = subject_of(core, state, images, parameters)
    answer, status = subject.answer()
    near = _nearest(state, images, parameters)
    pictures = Pictures(core, state, images)
    for row, place in enumerate(images.places):
        result = answer["results"][place]
        for replaced in ("neighbours", "known_anomaly", "nearest"):
            result.pop(replaced, None)
        result["examples"] = near[row]
        result.update(_own_words(state, subject, pictures, row))
        if parameters.method != "examples":
            result["map"] = _map(core, state, explainer, subject, images, pictures, row, result, parameters)
    return {**answer, "explained_by": parameters.method}, status


def _map(
    core: Core,
    state: CollectionState,
    explainer: Explain,
    subject: Subject,
    images: Vectors,
    pictures: Pictures,
    row: int,
    result: dict[str, Any],
    parameters: ExplainParameters,
) -> dict[str, Any]:
    explained = subject.explained(row, result)
    kind = MapKind(parameters.method)
    if kind is MapKind.GRADIENT and explained.slopes is None:
        what = "score" if explained.label is None else "probabilities"
        raise Invalid(
            f"`method=gradient`: scorer `{parameters.scorer}` knows no gradient of its {what}; ask for "
            "`method=occlusion`, `lime` or `shap`, which ask the scorer itself.",
            "gradient_not_offered",
        )
    image = prepared_pixels(pictures, row)
    baseline, told = _baseline(core, state, images, row, image, explained, parameters)
    gradient = None
    if kind is MapKind.GRADIENT and explained.slopes is not None:
        gradient = gradient_of(core, state, explained.slopes)
    found = explainer.map(kind, explained.score, image, baseline, gradient)
    scale = PROBABILITY_SCALE if explained.label is not None else _scale(subject, found.values)
    return {
        "target": "score" if explained.label is None else "probability",
        "label": explained.label,
        "value": found.value,
        "baseline": told,
        "baseline_value": found.baseline_value,
        "evaluations": found.evaluations,
        **show_map(pictures, row, found.values, scale),
    }


def _baseline(
    core: Core,
    state: CollectionState,
    images: Vectors,
    row: int,
    image: NDArray[np.float32],
    explained: Explained,
    parameters: ExplainParameters,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """What covered parts show, and what is told of it."""
    kind = parameters.baseline
    if kind is None and explained.label is not None:
        kind = "blur"
    if kind == "blur":
        return blurred(image), {"kind": "blur"}
    if kind == "mean":
        return mean_colour(image), {"kind": "mean"}
    with state.lock.read():
        entry = images.stored[row]
        exclude = np.array([-1 if entry is None else entry.pk], np.int64)
        try:
            found = scorer_of(state).score(images.vectors[row : row + 1], neighbours=1, exclude=exclude)
            nearest = state.entries.get(int(found.neighbours.ids[0, 0]))
        except (BankTooSmall, NothingToCompare):
            nearest = None
    if nearest is None:
        if kind is None:
            return blurred(image), {"kind": "blur"}
        raise Conflict(
            f"`baseline=normal`: collection `{state.name}` holds no normal image to put in place of what is covered; "
            "ask for `blur` or `mean`.",
            "bank_too_small",
        )
    embedder = core.embedders.stored(state.embedding, state.base_fingerprint).embedder
    prepared = core.embedders.prepare_one(embedder, core.store.get(nearest.sha256))
    return prepared.tensor.copy(), {"kind": "normal", "id": nearest.image_id}


def _scale(subject: Subject, values: NDArray[np.float64]) -> HeatScale:
    """One scale for all maps of a scorer: red where a cell alone lifts a usual image over the border.

    The border of maps is that of a false-alarm rate of one in a hundred, whatever rate is asked for.
    """
    scores = subject.calibration_scores()
    threshold = make_calibration(scores, 0.01).threshold
    reach = 0.0 if threshold is None else threshold - float(np.median(scores))
    if reach <= 0.0:  # too few images to say, or all alike
        reach = float(np.abs(values).max()) or 1.0
    return HeatScale(low=0.0, border=reach / 2.0)


def _nearest(state: CollectionState, images: Vectors, parameters: ExplainParameters) -> list[dict[str, Any]]:
    """For each image its nearest normal images, known defects, and examples of the nearest classes."""
    shown = state.settings.neighbours if parameters.neighbours is None else parameters.neighbours
    if not images.places:
        return []
    exclude = images.own_ids
    with state.lock.read():
        normal = known = None
        with suppress(BankTooSmall, NothingToCompare):  # there may be classes only, or nobody else
            normal = scorer_of(state).score(images.vectors, neighbours=shown, exclude=exclude).neighbours
        vectors = state.dn2.prepared(images.vectors)
        if shown and len(state.dn2.anomalous):
            found = state.dn2.anomalous.search(vectors, shown + 1)
            known = first_kept(found, (found.ids != exclude[:, None]) & (found.ids >= 0), shown)
        return [
            {
                "normal": [] if normal is None else _shown(state, normal, row),
                "anomalous": [] if known is None else _shown(state, known, row),
                "classes": _classes(state, vectors[row], int(exclude[row]), shown, parameters.classes),
            }
            for row in range(len(images.places))
        ]


def _classes(
    state: CollectionState, vector: NDArray[np.float32], own: int, each: int, most: int
) -> list[dict[str, Any]]:
    """The nearest examples of the nearest classes; distances in the collection's metric. Hold `state.lock.read()`."""
    classes: Classes | None = state.cache.get("examples_of_classes")
    if classes is None:
        pks = example_pks(state)
        labels = np.array(state.entries.labels_of(pks), dtype=object)
        classes = state.cache["examples_of_classes"] = {label: pks[labels == label] for label in sorted(set(labels))}
    if own >= 0:
        classes = {label: pks[pks != own] for label, pks in classes.items()}

    def search(vectors: NDArray[np.float32], k: int, allowed: NDArray[np.int64]) -> Neighbours:
        return state.rest.search(vectors, k, allowed=allowed, exact=True)

    return [
        {
            "label": one.label,
            "examples": _shown(state, Neighbours(ids=one.ids[None], distances=one.distances[None]), 0),
        }
        for one in nearest_of_classes(search, vector, classes, each=each, most=most)
    ]


def _shown(state: CollectionState, found: Neighbours, row: int) -> list[dict[str, Any]]:
    return [{**one, "thumbnail": _thumbnail(state, one["id"])} for one in show_neighbours(state, found, row)]


def _thumbnail(state: CollectionState, image_id: str) -> str:
    return f"/v1/collections/{quote(state.name, safe='')}/images/{quote(image_id, safe='')}/thumbnail"


def _own_words(state: CollectionState, subject: Subject, pictures: Pictures, row: int) -> dict[str, Any]:
    """What a fitted scorer that explains itself says, if it does."""
    fit = fit_behind(subject)
    if fit is None or not isinstance(fit.scorer, Explainer):
        return {}
    told = fit.scorer.explain(one_image(pictures.inputs(row, fit), 0))
    with state.lock.read():
        examples = {
            kind: [
                {"id": entry.image_id, "thumbnail": _thumbnail(state, entry.image_id)}
                for pk in ids[0].tolist()
                if (entry := state.entries.get(pk)) is not None
            ]
            for kind, ids in told.examples.items()
        }
    return {"own": {"sentence": told.sentences[0] if told.sentences else None, "examples": examples}}
