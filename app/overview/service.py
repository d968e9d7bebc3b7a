"""Stored images at a glance: their scores, and their places on a plane.

Both look at a bounded number of images, and remember what they found until the collection changes.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.compressed import scorer_of
from app.core import Core
from app.entry_columns import ROLES, ImageEntry
from app.errors import Busy
from app.fitted_shelf import LoadedFit
from app.scoring.fitted import fit_of, scores_by_fit, took_part
from app.scoring.images import Vectors, as_given, show_calibration
from app.scoring.schemas import ScoreParameters
from app.scoring.service import LIVE_SCORER
from app.shelf import CollectionState
from models.judging import anomalous, make_calibration, p_values
from models.plane import Layout, plane

SEED = 0
TOGETHER = 16  # images whose pixels are in memory at once
ANSWER_S = 20.0  # a fitted scorer that needs longer goes on when it is asked again


@dataclass(frozen=True, slots=True)
class _Scored:
    """Images with their scores; strangest first."""

    entries: list[ImageEntry]
    scores: NDArray[np.float32]
    calibration: NDArray[np.float32]
    """(n,) ascending"""

    @property
    def pks(self) -> NDArray[np.int64]:
        return np.array([one.pk for one in self.entries], np.int64)


def list_scores(
    core: Core, name: str, scorer: str, role: str | None, false_alarm_rate: float | None, limit: int, after: int | None
) -> dict[str, Any]:
    """Stored images, strangest first, with p-values and verdicts, and the scores that these rest on.

    An image of the bank is scored by `dn2` without itself and its group, as it is for calibration. One that a fitted
    scorer has learnt from is said to have taken part: its score says less.

    Raises NotFound; BankTooSmall, NothingToCompare when there is nothing to compare with; what `fit_of` raises; Busy
    when a fitted scorer goes on when it is asked again.
    """
    state = core.shelf.get(name, after)
    fit = _fit(core, state, scorer)
    with state.lock.read():
        found = _scored(state, role, limit)
        facts = _facts(state, scorer, fit)
        vectors = None if fit is None else state.vectors(found.pks)
    if fit is not None and vectors is not None:
        found = _by_fit(core, state, scorer, fit, found, as_given(core, state, found.pks, vectors))
    calibration = make_calibration(found.calibration, false_alarm_rate or state.settings.false_alarm_rate)
    verdicts = anomalous(found.scores, calibration)
    images = _shown(found, fit)
    for row, one in enumerate(images):
        one["anomalous"] = None if verdicts is None else bool(verdicts[row])
    return {
        **facts,
        "calibration": {
            **show_calibration(calibration, state.bank_note),
            "scores": [float(score) for score in found.calibration],
        },
        "images": images,
    }


def show_map(core: Core, name: str, scorer: str, layout: Layout, limit: int, after: int | None) -> dict[str, Any]:
    """Stored images, strangest first, each with a place on the plane, which is the same for all scorers.

    Raises what `list_scores` raises.
    """
    state = core.shelf.get(name, after)
    fit = _fit(core, state, scorer)
    with state.lock.read():
        found = _scored(state, None, limit)
        pks = found.pks
        vectors = state.vectors(pks)
        facts = _facts(state, scorer, fit)
        cache, place = state.cache, ("map", layout)
    kept: tuple[int, int, NDArray[np.float32]] | None = cache.get(place)
    if kept is None or kept[:2] != (facts["sequence"], limit):
        # Without the lock: no write waits for a map.
        kept = cache[place] = (facts["sequence"], limit, plane(vectors, layout, SEED))
    places = dict(zip(pks.tolist(), kept[2].tolist(), strict=True))
    if fit is not None:
        found = _by_fit(core, state, scorer, fit, found, as_given(core, state, pks, vectors))
    images = _shown(found, fit)
    for entry, one in zip(found.entries, images, strict=True):
        one["x"], one["y"] = places[entry.pk]
    return {**facts, "layout": layout, "images": images}


def _fit(core: Core, state: CollectionState, scorer: str) -> LoadedFit | None:
    """The fit that serves under this name; None for the scorer that follows the bank."""
    return None if scorer == LIVE_SCORER else fit_of(core, state, ScoreParameters(scorer=scorer))


def _facts(state: CollectionState, scorer: str, fit: LoadedFit | None) -> dict[str, Any]:
    fitted: dict[str, Any] = {}
    if fit is not None:
        fitted["method"] = fit.card.name
        fitted["fit"] = {"revision": fit.sequence, "params": fit.parameters, "seed": fit.seed}
    return {
        "scorer": scorer,
        **fitted,
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "k": state.settings.k if fit is None else None,
        "metric": state.settings.metric,
        "sequence": state.sequence,
        "stored": sum(state.counts().values()),
    }


def _by_fit(
    core: Core, state: CollectionState, scorer: str, fit: LoadedFit, found: _Scored, vectors: NDArray[np.float32]
) -> _Scored:
    """The same images by a fitted scorer, strangest first. Raises Busy when it is not through in `ANSWER_S`."""
    until = monotonic() + min(ANSWER_S, core.settings.deadline_s)
    keys = [(one.pk, one.sha256) for one in found.entries]
    known = {row: score for row, key in enumerate(keys) if (score := fit.scored.get(key)) is not None}
    waiting = [row for row in range(len(keys)) if row not in known]
    for start in range(0, len(waiting), TOGETHER):
        if monotonic() > until:
            raise Busy(
                f"Scorer `{scorer}` is through with {len(known)} of {len(keys)} images of `{state.name}`; what it has "
                "found is kept. Ask again to go on.",
                "still_scoring",
                done=len(known),
                total=len(keys),
            )
        rows = waiting[start : start + TOGETHER]
        images = Vectors(vectors[rows], list(range(len(rows))), {}, [found.entries[row] for row in rows], [])
        for row, one in zip(rows, scores_by_fit(core, state, fit, images), strict=True):
            known[row] = float(one.image[0])
            fit.scored.keep(keys[row], known[row])
    scores = np.array([known[row] for row in range(len(keys))], np.float32)
    order = np.lexsort((found.pks, -scores))
    return _Scored([found.entries[row] for row in order.tolist()], scores[order], np.sort(fit.calibration))


def _scored(state: CollectionState, role: str | None, limit: int) -> _Scored:
    """A bounded choice of images, scored as the bank stands. Hold `state.lock.read()`."""
    kept: tuple[str | None, int, _Scored] | None = state.cache.get("scored")
    if kept is None or kept[:2] != (role, limit):
        kept = state.cache["scored"] = (role, limit, _score(state, role, limit))
    return kept[2]


def _score(state: CollectionState, role: str | None, limit: int) -> _Scored:
    scorer, k = scorer_of(state), state.settings.k
    with state.calibrating:
        calibrating = scorer.calibration(k)
    drawn, others = _chosen(state, calibrating.ids.size, role, limit)
    scores = np.zeros(0, np.float32)
    if others.size:
        scores = scorer.score(state.vectors(others), k=k, neighbours=0, exclude=others).score
    pks = np.concatenate([calibrating.ids[drawn], others])
    scores = np.concatenate([calibrating.scores[drawn], scores])
    order = np.lexsort((pks, -scores))
    entries = [state.entries[pk] for pk in pks[order].tolist()]
    return _Scored(entries, scores[order], np.sort(calibrating.scores))


def _chosen(
    state: CollectionState, calibrating: int, role: str | None, limit: int
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Places among the images that calibrate, evenly drawn; and the newest images outside the bank."""
    within = calibrating if role in (None, "normal") else 0
    wanted = [one for one in ROLES if one != "normal" and role in (None, one)]
    others = np.sort(np.concatenate([np.zeros(0, np.int64), *(state.entries.pks_of_role(one) for one in wanted)]))
    outside = min(others.size, max(limit // 2, limit - within))
    inside = min(within, limit - outside)
    return np.linspace(0, within, inside, endpoint=False).astype(np.intp), others[others.size - outside :]


def _shown(found: _Scored, fit: LoadedFit | None) -> list[dict[str, Any]]:
    p = p_values(found.scores, found.calibration) if found.calibration.size else None
    return [
        {
            "id": entry.image_id,
            "role": entry.role,
            "label": entry.label,
            "metadata": entry.metadata,
            "score": float(found.scores[row]),
            "p_value": None if p is None else float(p[row]),
            **({} if fit is None else {"took_part": took_part(fit, entry.pk)}),
        }
        for row, entry in enumerate(found.entries)
    ]
