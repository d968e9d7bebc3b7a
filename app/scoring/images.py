"""Images of a request as vectors, and the parts of an answer that all scorers share."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from app.ahead import Ahead
from app.bodies import Upload
from app.core import Core
from app.errors import Invalid, NotFound, item_problem
from app.images.repository import stored_vectors
from app.shelf import CollectionState, ImageEntry
from index import Neighbours
from models.backbones.embedder import PreparedImage
from models.errors import ModelsError
from models.judging import Calibration

CALIBRATION_FIELDS = tuple(one.name for one in fields(Calibration))  # all plain: `asdict` would copy each deeply


@dataclass(frozen=True, slots=True)
class Vectors:
    """Images turned into vectors: which places of the request they fill, and what went wrong at the others."""

    vectors: NDArray[np.float32]
    places: list[int]
    problems: dict[int, dict[str, Any]]
    stored: list[ImageEntry | None]  # for each vector, the stored image it came from
    prepared: list[PreparedImage]  # for each vector of an uploaded image, what the network was fed; else empty

    @property
    def own_ids(self) -> NDArray[np.int64]:
        """(n,) ids that must not count for their own image; -1 for one that was sent."""
        return np.array([-1 if one is None else one.pk for one in self.stored], np.int64)


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
        vectors = as_given(core, state, [entry.pk for entry in entries if entry is not None], vectors)
        return Vectors(vectors, places, problems, entries, [])
    embedder = core.embedders.of(state)
    state.network = ref(embedder.network)
    prepared = core.embedders.prepare(embedder.embedder, [upload.data for upload in uploads])
    good = []
    for place, image in enumerate(prepared):
        if isinstance(image, ModelsError):
            problems[place] = item_problem(image)
        else:
            good.append(image)
            places.append(place)
    vectors = np.empty((0, state.width), np.float32)
    if good:
        vectors = embedder.projected(core.embedders.embed(embedder.network, good))
    return Vectors(vectors, places, problems, [None] * len(good), good)


def joined(core: Core, state: CollectionState, several: Sequence[Ahead]) -> Vectors | None:
    """Images of several requests as if one had sent them; None where the collection needs another network by now."""
    embedder = core.embedders.of(state)
    state.network = ref(embedder.network)
    if any(one.network is not embedder.network for one in several):
        return None
    places = [place for place, one in enumerate(several) if one.problem is None]
    problems = {place: one.problem for place, one in enumerate(several) if one.problem is not None}
    vectors = np.empty((0, state.width), np.float32)
    if places:
        vectors = embedder.projected(np.concatenate([several[place].vectors for place in places]))
    return Vectors(vectors, places, problems, [None] * len(places), [])


def as_given(
    core: Core, state: CollectionState, pks: Sequence[int] | NDArray[np.int64], held: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Vectors (n, width) of stored images as the embedding gave them, which fitted scorers learn from; in order.

    `held` are those in memory. Where these are scaled the others are read from the record; an image that has changed
    there meanwhile keeps what is held.
    """
    if not state.is_scaled:
        return held
    wanted = np.asarray(pks, np.int64).tolist()
    with core.database.read() as session:
        stored = stored_vectors(session, state.embedding_id, wanted)
    found = held.copy()
    for row, pk in enumerate(wanted):
        blob = stored.get(pk, b"")
        if len(blob) == 4 * state.width:
            given = np.frombuffer(blob, "<f4")[None]
            if np.array_equal(state.dn2.prepared(given)[0], held[row]):
                found[row] = given
    return found


def show_neighbours(state: CollectionState, found: Neighbours, row: int) -> list[dict[str, Any]]:
    """The neighbours of one query as answers show them, nearest first."""
    return [
        {"id": entry.image_id, "distance": distance, "metadata": entry.metadata}
        for pk, distance in zip(found.ids[row].tolist(), found.distances[row].tolist(), strict=True)
        if (entry := state.entries.get(pk)) is not None
    ]


def show_calibration(calibration: Calibration, note: dict[str, Any] | None) -> dict[str, Any]:
    """What the verdict promises: on how many images it rests, the rate it supports, and what biases it."""
    return {**{name: getattr(calibration, name) for name in CALIBRATION_FIELDS}, "biased": note}
