"""The small bank of a compressed collection, as it stands after every later change.

The record keeps what compressing chose; this module joins it with what happened since. Images that came later are
full rows. Images that left the bank take their row of a coreset with them; a k-means centre stays while one of the
images it was made from does. Calibration rests on images set aside before the choice, scored against the small
bank as queries are: leave-one-out among chosen vectors would say nothing about new images.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.shelf import CollectionState, CompressedBank
from models.methods.dn2 import CalibrationScores, DN2Params, DN2Scores, LiveDN2
from models.pooling import disjoint_sets

SET_ASIDE = -1  # in `member_places`: kept for calibration
_ROWS = 256  # calibration rows scored at once: bounds memory


@dataclass(frozen=True, slots=True)
class CompressedScorer:
    """A small bank that scores and calibrates like a `LiveDN2`; safe for many threads."""

    small: LiveDN2
    calibration_ids: NDArray[np.int64]
    """(c,) images set aside that still count."""
    calibration_vectors: NDArray[np.float32]
    """(c, D)"""
    facts: dict[str, Any]
    """Method, rows, and what has come and gone since; for answers."""
    _calibrations: dict[int | None, CalibrationScores] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def score(
        self,
        vectors: NDArray[np.float32],
        *,
        k: int | None = None,
        neighbours: int = 3,
        exclude: NDArray[np.int64] | None = None,
        is_set: bool = False,
    ) -> DN2Scores:
        """Scores against the small bank; a k-means centre is shown as the image nearest to it.

        Shapes: vectors (Q, D), exclude (Q,) ids that must not count for their own query, -1 for none; under `is_set`
        for no query. An image that a centre stands for cannot be left out of the centre.

        Raises:
            BankTooSmall: nothing is left of the small bank.
            NothingToCompare: the only row is the excluded one.
        """
        return self.small.score(vectors, k=k, neighbours=neighbours, exclude=exclude, is_set=is_set)

    def slopes(
        self, vectors: NDArray[np.float32], *, k: int | None = None, exclude: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """The gradient of each score with respect to its vector, (Q, D); as `score` in all else."""
        return self.small.slopes(vectors, k=k, exclude=exclude)

    def calibration(self, k: int | None = None) -> CalibrationScores:
        """Scores of the images set aside, by the same formula as queries; empty when there is nothing to score."""
        with self._lock:
            if k not in self._calibrations:
                scores = np.zeros(0 if len(self.small.bank) == 0 else self.calibration_ids.size, np.float32)
                for start in range(0, scores.size, _ROWS):
                    rows = slice(start, start + _ROWS)
                    scores[rows] = self.small.score(self.calibration_vectors[rows], k=k, neighbours=0).score
                self._calibrations[k] = CalibrationScores(scores=scores, ids=self.calibration_ids[: scores.size])
            return self._calibrations[k]

    def calibration_in_sets(self, size: int, k: int | None = None) -> NDArray[np.float32]:
        """The same in disjoint sets, (n, size): none of these images is in the small bank to vouch for another."""
        found = self.calibration(k)
        by_id = np.argsort(found.ids)  # sets are drawn whatever their images score
        return found.scores[by_id][disjoint_sets(by_id.size, size, seed=0)]


def scorer_of(state: CollectionState) -> LiveDN2 | CompressedScorer:
    """What scores a collection: its small bank when it is compressed, else its whole bank.

    Hold `state.lock.read()` for as long as the scorer is used.
    """
    return compressed_scorer(state) or state.dn2


def compressed_scorer(state: CollectionState) -> CompressedScorer | None:
    """The small bank of a collection as it stands, None when it is not compressed. Hold `state.lock.read()`.

    Built once a change of the collection, in time proportional to its bank; threads that come at the same moment may
    each build one, which are equal.
    """
    made = state.compressed
    if made is None:
        return None
    scorer: CompressedScorer | None = state.cache.get("compressed")
    if scorer is None:
        scorer = state.cache["compressed"] = _build(state, made)
    return scorer


def parameters_of(state: CollectionState) -> DN2Params:
    """The collection's parameters of `dn2`."""
    return state.dn2.params


def small_bank(params: DN2Params, width: int, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> LiveDN2:
    """A scorer whose bank holds just these vectors; its own leave-one-out is never asked for."""
    small = LiveDN2(width=width, params=params)
    if ids.size:
        small.add_normal(ids, np.zeros(ids.size, np.uint64), vectors)
    return small


def _build(state: CollectionState, made: CompressedBank) -> CompressedScorer:
    bank = state.dn2.bank
    in_bank = bank.ids()
    alive = np.isin(made.member_pks, in_bank)
    alive[alive] = state.entries.marks_of(made.member_pks[alive]) == made.member_marks[alive]
    added = np.setdiff1d(in_bank, made.member_pks[alive], assume_unique=True)
    places, shown = _living_rows(state, made, alive)
    small = small_bank(
        parameters_of(state),
        state.width,
        np.concatenate([shown, added]),
        np.concatenate([made.centres[places], bank.vectors(added)]),
    )
    taught = state.dn2.anomalous.ids()
    if taught.size:
        small.add_anomalous(taught, state.dn2.anomalous.vectors(taught))
    aside = made.member_pks[alive & (made.member_places == SET_ASIDE)]
    calibrating = _apart_from(state, aside, added)
    facts = {
        "method": made.method,
        "rows": int(shown.size),
        "rows_gone": int(made.centre_pks.size - shown.size),
        "images": int((made.member_places != SET_ASIDE).sum()),
        "images_gone": int((~alive & (made.member_places != SET_ASIDE)).sum()),
        "added_since": int(added.size),
        "calibration_images": int(calibrating.size),
        "calibration_images_gone": int((~alive & (made.member_places == SET_ASIDE)).sum()),
        "calibration_images_left_out": int(aside.size - calibrating.size),
    }
    return CompressedScorer(small, calibrating, bank.vectors(calibrating), facts)


def _living_rows(
    state: CollectionState, made: CompressedBank, alive: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Which centres still stand, and the image each is shown as."""
    if made.method == "coreset":
        still = np.flatnonzero(np.isin(made.centre_pks, made.member_pks[alive]))
        return still, made.centre_pks[still]
    living, places = made.member_pks[alive], made.member_places[alive]
    members = np.bincount(places[places != SET_ASIDE], minlength=made.centre_pks.size)
    still = np.flatnonzero(members > 0)
    shown = made.centre_pks[still].copy()
    for row in np.flatnonzero(~np.isin(shown, living)).tolist():
        others = living[places == still[row]]
        shown[row] = nearest_to(parameters_of(state), made.centres[still[row]], others, state.dn2.bank.vectors(others))
    return still, shown


def nearest_to(
    params: DN2Params, centre: NDArray[np.float32], ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> int:
    """The id whose vector is nearest to a centre, the lowest of several."""
    found = small_bank(params, centre.size, ids, vectors).score(centre[None], k=1, neighbours=1)
    return int(found.neighbours.ids[0, 0])


def _apart_from(state: CollectionState, aside: NDArray[np.int64], added: NDArray[np.int64]) -> NDArray[np.int64]:
    """Images set aside of whose group nothing joined the small bank since: no image vouches for its own group."""
    joined = set(state.entries.groups_of(added)) - {None}
    if not joined:
        return aside
    return aside[[group not in joined for group in state.entries.groups_of(aside)]]
