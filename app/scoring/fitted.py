"""Scoring images with a scorer that a job has fitted."""

import base64
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.compressed import scorer_of
from app.core import Core
from app.errors import Conflict, Invalid
from app.fitted_shelf import LoadedFit
from app.observe import stage
from app.scoring.images import Vectors, show_calibration, show_neighbours
from app.scoring.schemas import ScoreParameters
from app.shelf import CollectionState
from models.backbones.embedder import Embedder, PreparedImage
from models.contract import Give, Inputs, Scores
from models.errors import BankTooSmall, DeadlinePassed, NothingToCompare, RuntimeMismatch
from models.fitting import scores_of
from models.heat_maps import HeatScale, overlay_png
from models.inputs import EmbedderBackbone, LazyInputs, LazyMaps
from models.judging import anomalous, benjamini_hochberg, make_calibration, p_values
from models.preprocessing import margins

OVERLAY_SIDE_MAX = 512  # pixels of the longer side


def score_with_fit(
    core: Core, state: CollectionState, fit: LoadedFit, images: Vectors, parameters: ScoreParameters
) -> tuple[dict[str, Any], int]:
    """Scores, p-values and verdicts by a fitted scorer, in the shape that the live one answers in.

    Each image is scored by itself, so its score has the same bits in any company.

    Raises:
        DeadlinePassed: the images take longer than a request may.
    """
    pictures = Pictures(core, state, images)
    found = scores_by_fit(core, state, fit, images, pictures)
    requested = parameters.false_alarm_rate or state.settings.false_alarm_rate
    calibration = make_calibration(fit.calibration, requested)
    raw = np.array([one.image[0] for one in found], np.float32)
    p = p_values(raw, fit.calibration) if calibration.n else None
    verdicts = anomalous(raw, calibration)
    flagged = benjamini_hochberg(p, requested) if parameters.control == "fdr" and p is not None else None
    near = _neighbours(state, images, parameters)
    results: list[dict[str, Any]] = [{} for _ in range(len(images.places) + len(images.problems))]
    for place, fault in images.problems.items():
        results[place] = {"problem": fault}
    for row, place in enumerate(images.places):
        entry = images.stored[row]
        results[place] = {
            **({} if entry is None else {"id": entry.image_id, "took_part": took_part(fit, entry.pk)}),
            "score": float(raw[row]),
            "p_value": None if p is None else float(p[row]),
            "anomalous": None if verdicts is None else bool(verdicts[row]),
            **({} if flagged is None else {"flagged": bool(flagged[row])}),
            **near[row],
            **_heat_map(pictures, row, found[row], fit.heat_scale, parameters.heatmap),
            "details": _details(found[row]),
        }
    answer = {
        "scorer": parameters.scorer,
        "method": fit.card.name,
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "k": None,
        "metric": state.settings.metric,
        "sequence": state.sequence,
        "fit": {"revision": fit.sequence, "params": fit.parameters, "seed": fit.seed},
        "calibration": show_calibration(calibration, state.bank_note),
        "results": results,
    }
    return answer, 207 if images.problems else 200


def scores_by_fit(
    core: Core, state: CollectionState, fit: LoadedFit, images: Vectors, pictures: "Pictures | None" = None
) -> list[Scores]:
    """What a fit says of each image, asked for one at a time. Raises DeadlinePassed."""
    pictures = pictures or Pictures(core, state, images)
    until = time.monotonic() + core.settings.deadline_s
    found: list[Scores] = []
    for row in range(len(images.places)):
        if time.monotonic() > until:
            raise DeadlinePassed(
                f"`files` must be few enough for {core.settings.deadline_s:g} s of scoring; got {len(images.places)}."
            )
        with stage("score"):
            found.extend(scores_of(fit.scorer, pictures.inputs(row, fit)))
    return found


def fit_of(core: Core, state: CollectionState, parameters: ScoreParameters) -> LoadedFit:
    """The fit that serves under the name asked for.

    Raises:
        Conflict: nothing is fitted under this name, or it was fitted on another embedding.
        Invalid: a heat map is asked of a scorer that gives none, or `k` of one that has none.
    """
    name = parameters.scorer
    fit = core.fitted.serving(state.id, name)
    if fit is None:
        raise Conflict(
            f"Scorer `{name}` is not fitted on `{state.name}`: PUT /v1/collections/{state.name}/scorers/{name} fits "
            "one, GET shows how far it is. GET /v1/scorers lists the methods; `dn2` is always ready.",
            "scorer_not_fitted",
        )
    if fit.embedding_id != state.embedding_id:
        raise Conflict(
            f"Scorer `{name}` was fitted on embedding {fit.fingerprint[:16]}, and `{state.name}` has "
            f"{state.fingerprint[:16]} now; fit it again.",
            "stale_embedding",
        )
    check_runtime(core, state, fit, name)
    if parameters.heatmap and (fit.heat_scale is None or Give.HEAT_MAP not in fit.card.gives.outputs):
        raise Invalid(
            f"`heatmap`: scorer `{name}` judges the whole image and gives no heat map; ask without it.",
            "heatmap_not_offered",
        )
    if parameters.k is not None:
        raise Invalid(f"`k`: is of `dn2`; the parameters of `{name}` were set when it was fitted.", "k_not_offered")
    return fit


def check_runtime(core: Core, state: CollectionState, fit: LoadedFit, name: str) -> None:
    """Raise RuntimeMismatch where the collection's vectors cannot be compared with those that were fitted on.

    Of an empty collection it is those that would be computed now.
    """
    names = set(state.runtimes.values()) or {core.embedders.of(state).embedder.runtime.comparable_with}
    if fit.comparable_with is not None and names - {fit.comparable_with}:
        raise RuntimeMismatch(
            f"The vectors of `{state.name}` must be comparable with {fit.comparable_with}, as when scorer `{name}` was "
            f"fitted; got {', '.join(sorted(names))}. PUT /v1/collections/{state.name}/scorers/{name} fits it again."
        )


class Pictures:
    """The images of a request as methods see them; bytes of stored ones are read only when somebody looks."""

    def __init__(self, core: Core, state: CollectionState, images: Vectors) -> None:
        self._core = core
        self._images = images
        self._state = state
        self._embedder: Embedder = core.embedders.stored(state.embedding, state.base_fingerprint).embedder
        self._backbone: EmbedderBackbone | None = None
        with suppress(RuntimeMismatch):  # then stored images are judged by their vectors alone
            self._backbone = EmbedderBackbone(core.embedders.of(state).embedder, state.projection)
        self._read: dict[int, PreparedImage] = {}

    def inputs(self, row: int, fit: LoadedFit) -> Inputs:
        """One image of the request."""
        entry = self._images.stored[row]

        def pixels() -> NDArray[np.float32]:
            return self.prepared(row).tensor[None].copy()  # torch takes no array that must not be written to

        def maps(stages: Sequence[int]) -> dict[int, NDArray[np.float32]]:
            comparable = self._core.embedders.of(self._state).embedder
            return comparable.maps([self.prepared(row)], stages)

        return LazyInputs(
            pixels,
            ids=np.array([-1 if entry is None else entry.pk], np.int64),
            vectors=self._images.vectors[row : row + 1],
            maps=LazyMaps(maps, fit.asked),
            backbone=self._backbone,
        )

    def prepared(self, row: int) -> PreparedImage:
        """What the network is fed of an image. Raises NotFound when its bytes are gone."""
        if self._images.prepared:
            return self._images.prepared[row]
        if row not in self._read:
            entry = self._images.stored[row]
            assert entry is not None
            self._read[row] = self._core.embedders.prepare_one(self._embedder, self._core.store.get(entry.sha256))
        return self._read[row]

    def region(self, row: int) -> dict[str, float]:
        """Which part of the upright image the network sees, in shares of its width and height."""
        image = self.prepared(row)
        across, down = margins(self._embedder.identity.preprocessing.fit, image.width, image.height)
        return {"left": across, "top": down, "right": 1.0 - across, "bottom": 1.0 - down}


def _neighbours(state: CollectionState, images: Vectors, parameters: ScoreParameters) -> list[dict[str, Any]]:
    """The nearest normal images and the nearest known defect of each image, as the live scorer shows them."""
    shown = state.settings.neighbours if parameters.neighbours is None else parameters.neighbours
    nothing: list[dict[str, Any]] = [{"neighbours": [], "known_anomaly": None} for _ in images.places]
    if not images.places:
        return nothing
    with state.lock.read():
        try:
            found = scorer_of(state).score(images.vectors, neighbours=shown, exclude=images.own_ids)
        except (BankTooSmall, NothingToCompare):  # the bank was emptied after the fit: there is nobody to show
            return nothing
        return [
            {
                "neighbours": show_neighbours(state, found.neighbours, row),
                "known_anomaly": next(iter(show_neighbours(state, found.known, row)), None),
            }
            for row in range(len(images.places))
        ]


def took_part(fit: LoadedFit, pk: int) -> bool:
    """Whether a stored image was fitted on or calibrates: its p-value then says less than that of a new image."""
    place = int(np.searchsorted(fit.members, pk))
    return place < fit.members.size and int(fit.members[place]) == pk


def _heat_map(pictures: Pictures, row: int, scores: Scores, scale: HeatScale | None, is_wanted: bool) -> dict[str, Any]:
    if not is_wanted or scores.pixels is None or scale is None:
        return {}
    return {"heatmap": show_map(pictures, row, scores.pixels[0], scale)}


def show_map(pictures: Pictures, row: int, values: NDArray[Any], scale: HeatScale) -> dict[str, Any]:
    """A map (h, w) over what the network sees of one image, as answers show it: the values, and a PNG to lay over."""
    heat = np.ascontiguousarray(values, "<f4")
    region = pictures.region(row)
    image = pictures.prepared(row)
    width = image.width * (region["right"] - region["left"])
    height = image.height * (region["bottom"] - region["top"])
    shrunk = min(1.0, OVERLAY_SIDE_MAX / max(width, height))
    overlay = overlay_png(heat, scale, max(1, round(width * shrunk)), max(1, round(height * shrunk)))
    return {
        "shape": list(heat.shape),
        "values": base64.b64encode(heat.tobytes()).decode("ascii"),
        "low": scale.low,
        "border": scale.border,
        "high": scale.high,
        "region": region,
        "overlay": f"data:image/png;base64,{base64.b64encode(overlay).decode('ascii')}",
    }


def _details(scores: Scores) -> dict[str, Any]:
    """Whatever else the method told of one image."""
    told: dict[str, Any] = {
        "terms": {name: _plain(values) for name, values in scores.terms.items()},
        "tags": {name: values[0] for name, values in scores.tags.items()},
        "probabilities": {name: float(values[0]) for name, values in scores.probabilities.items()},
        "boxes": [asdict(one) for one in scores.boxes[0]] if scores.boxes else [],
        "relations": [asdict(one) for one in scores.relations[0]] if scores.relations else [],
    }
    return {name: value for name, value in told.items() if value}


def _plain(values: NDArray[np.float32]) -> float | list[float]:
    one = values[0]
    return float(one) if np.ndim(one) == 0 else [float(each) for each in np.ravel(one)]
