"""Many images on one plane, so that people see what lies near what.

Letters: N images, D vector width.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.principal_directions import coordinates_and_residuals, principal_directions

PERPLEXITY = 30.0
ITERATIONS = 500
KEPT_DIRECTIONS = 30
"""Principal directions that the neighbour embedding looks at: more cost time and hold mostly noise."""
FEWEST = 5
"""Images below which neighbourhoods mean nothing and the principal plane is shown."""


class Layout(StrEnum):
    """How the plane is found."""

    PRINCIPAL = "principal"
    NEIGHBOURS = "neighbours"


def plane(vectors: NDArray[np.float32], layout: Layout, seed: int) -> NDArray[np.float32]:
    """A place on the plane for each vector.

    `principal` turns the cloud so that its two widest directions are seen: distances keep their meaning, apart from
    what lies in the directions left out. `neighbours` (t-SNE) keeps neighbours together and gives up all else: sizes
    of groups and gaps between them mean nothing there.

    Shapes: vectors (N, D) -> (N, 2).
    Units:  the larger side of what the places cover runs from -1 to 1; both axes have one scale.
    Ties:   equal vectors get equal places on the principal plane.

    Source: van der Maaten, Hinton 2008 (t-SNE), by scikit-learn, from the principal plane as the start.
    """
    if len(vectors) < 2:
        return np.zeros((len(vectors), 2), np.float32)
    found = principal_directions(vectors, KEPT_DIRECTIONS)
    coordinates, _ = coordinates_and_residuals(vectors, found)
    flat = np.zeros((len(vectors), 2))
    shown = coordinates[:, :2]
    flat[:, : shown.shape[1]] = shown
    if layout is Layout.NEIGHBOURS and len(vectors) >= FEWEST and shown.shape[1] == 2:
        flat = _neighbour_embedding(coordinates, seed)
    return _between_minus_one_and_one(flat)


def _neighbour_embedding(coordinates: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    # Half a second that no start of the service waits for.
    from sklearn.manifold import TSNE  # rule-skip: import-in-function most services never show a map

    perplexity = min(PERPLEXITY, (len(coordinates) - 1) / 3)
    # A small start lets neighbours find each other before the whole spreads.
    start = coordinates[:, :2] / coordinates[:, 0].std() * 1e-4
    made: NDArray[np.float64] = TSNE(  # type: ignore[no-untyped-call]
        perplexity=perplexity, init=start.astype(np.float32), max_iter=ITERATIONS, random_state=seed
    ).fit_transform(coordinates)
    return made


def _between_minus_one_and_one(flat: NDArray[np.float64]) -> NDArray[np.float32]:
    low, high = flat.min(axis=0), flat.max(axis=0)
    half = max(float((high - low).max()) / 2, np.finfo(np.float64).tiny)
    places: NDArray[np.float32] = ((flat - (low + high) / 2) / half).astype(np.float32)
    return places
