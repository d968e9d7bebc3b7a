"""Stored images at a glance: their scores, and their places on a plane.

Both look at a bounded number of images, and remember what they found until the collection changes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.compressed import scorer_of
from app.core import Core
from app.entry_columns import ROLES
from app.scoring.images import show_calibration
from app.shelf import CollectionState
from models.judging import anomalous, make_calibration, p_values
from models.plane import Layout, plane

SEED = 0


@dataclass(frozen=True, slots=True)
class _Scored:
    """Images with their scores; strangest first."""

    pks: NDArray[np.int64]
    scores: NDArray[np.float32]
    calibration: NDArray[np.float32]
    """(n,) ascending"""


def list_scores(
    core: Core, name: str, role: str | None, false_alarm_rate: float | None, limit: int, after: int | None
) -> dict[str, Any]:
    """Stored images, strangest first, with p-values and verdicts, and the scores that these rest on.

    An image of the bank is scored without itself and its group, as it is for calibration.

    Raises NotFound; BankTooSmall, NothingToCompare when there is nothing to compare with.
    """
    state = core.shelf.get(name, after)
    with state.lock.read():
        found = _scored(state, role, limit)
        calibration = make_calibration(found.calibration, false_alarm_rate or state.settings.false_alarm_rate)
        verdicts = anomalous(found.scores, calibration)
        images = _shown(state, found)
        for row, one in enumerate(images):
            one["anomalous"] = None if verdicts is None else bool(verdicts[row])
        return {
            **_facts(state),
            "calibration": {
                **show_calibration(calibration, state.bank_note),
                "scores": [float(score) for score in found.calibration],
            },
            "images": images,
        }


def show_map(core: Core, name: str, layout: Layout, limit: int, after: int | None) -> dict[str, Any]:
    """Stored images, strangest first, each with a place on the plane.

    Raises NotFound; BankTooSmall, NothingToCompare when there is nothing to compare with.
    """
    state = core.shelf.get(name, after)
    with state.lock.read():
        found = _scored(state, None, limit)
        vectors = state.vectors(found.pks)
        images = _shown(state, found)
        facts = _facts(state)
        cache, place = state.cache, ("map", layout)
    kept: tuple[int, int, NDArray[np.float32]] | None = cache.get(place)
    if kept is None or kept[:2] != (facts["sequence"], limit):
        # Without the lock: no write waits for a map.
        kept = cache[place] = (facts["sequence"], limit, plane(vectors, layout, SEED))
    for one, (x, y) in zip(images, kept[2].tolist(), strict=True):
        one.update(x=x, y=y)
    return {**facts, "layout": layout, "images": images}


def _facts(state: CollectionState) -> dict[str, Any]:
    return {
        "scorer": "dn2",
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "k": state.settings.k,
        "metric": state.settings.metric,
        "sequence": state.sequence,
        "stored": sum(state.counts().values()),
    }


def _scored(state: CollectionState, role: str | None, limit: int) -> _Scored:
    """A bounded choice of images, scored. Hold `state.lock.read()`."""
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
    return _Scored(pks[order], scores[order], np.sort(calibrating.scores))


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


def _shown(state: CollectionState, found: _Scored) -> list[dict[str, Any]]:
    p = p_values(found.scores, found.calibration) if found.calibration.size else None
    entries = [state.entries[pk] for pk in found.pks.tolist()]
    return [
        {
            "id": entry.image_id,
            "role": entry.role,
            "label": entry.label,
            "metadata": entry.metadata,
            "score": float(found.scores[row]),
            "p_value": None if p is None else float(p[row]),
        }
        for row, entry in enumerate(entries)
    ]
