"""The classifier of a collection in memory: fitted when it is first asked for after the examples have changed.

It depends on the examples alone. After any change of the collection their facts are compared with those it was fitted
to, so that a write elsewhere costs that comparison and no fit. A fit holds no lock that others wait for, and those who
need the same one wait for it together.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from app.collection_state import CollectionState
from app.errors import Conflict
from models.methods.few_shot_lr import FewShotLRParams, FittedClasses, LiveFewShotLR

PLACE = "classes"


@dataclass(frozen=True, slots=True)
class KeptClasses:
    """A classifier with what tells whether it is still the right one."""

    mark: bytes
    fitted: FittedClasses

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""
        return self.fitted.memory_bytes


def known(state: CollectionState) -> FittedClasses | None:
    """The classifier of the examples as they are, if it was fitted already. Hold `state.lock.read()`.

    Raises Conflict when there is no example.
    """
    fitted: FittedClasses | None = state.cache.get(PLACE)
    if fitted is None:
        pks = example_pks(state)
        if not len(pks):
            raise Conflict(
                f"Collection `{state.name}` has no classes yet; PUT /v1/collections/{state.name}/classes/LABEL with a "
                "few images of a class makes one.",
                "no_classes",
            )
        kept: KeptClasses | None = state.kept.get(PLACE)
        if kept is None or kept.mark != _mark(state, pks):
            return None
        fitted = state.cache[PLACE] = kept.fitted
    return fitted


def current(state: CollectionState) -> tuple[FittedClasses, int]:
    """The classifier of the examples as they are, fitted now if need be, and the sequence it was right at.

    Hold no lock of the state. Raises Conflict when there is no example.
    """
    with state.lock.read():
        fitted, sequence = known(state), state.sequence
    if fitted is not None:
        return fitted, sequence
    with state.fitting:
        with state.lock.read():
            fitted, sequence = known(state), state.sequence
            if fitted is None:
                pks = example_pks(state)
                mark = _mark(state, pks)
                live = LiveFewShotLR(width=state.width, params=FewShotLRParams())
                keys, groups = state.entries.keys_of(pks), state.entries.groups_of(pks)
                labels = [label or "" for label in state.entries.labels_of(pks)]
                live.add(pks, keys, labels, state.vectors(pks), groups)
        if fitted is None:
            fitted = live.fitted()
            state.kept[PLACE] = KeptClasses(mark, fitted)
    return fitted, sequence


def example_pks(state: CollectionState) -> np.ndarray:
    """The images that belong to a class, ascending. Hold `state.lock.read()`."""
    pks = state.entries.pks_of_role("example")
    has_label = np.array([label is not None for label in state.entries.labels_of(pks)], np.bool_)
    return pks[has_label]


def _mark(state: CollectionState, pks: np.ndarray) -> bytes:
    """A hash of everything about the examples that the classifier depends on."""
    named = zip(state.entries.labels_of(pks), state.entries.groups_of(pks), strict=True)
    digest = hashlib.sha256(pks.tobytes())
    digest.update(state.entries.hashes_of(pks).tobytes())
    digest.update(repr(list(named)).encode())
    return digest.digest()
