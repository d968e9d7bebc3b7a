"""What a reward sees of an image: where its vector lies, and how far from the bank.

Letters: B images, D width of a vector, K principal directions, N bank images kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index import Metric
from index.distances import distances_to_all
from models.principal_directions import Directions, coordinates_and_residuals, principal_directions

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Features:
    """Principal coordinates in units of their average deviation, and the raw score in units of its own.

    One unit for all coordinates: brought to one deviation each, the noise of the last would count like the first.
    """

    directions: Directions
    bank: NDArray[np.float32]
    """(N, D)"""
    bank_ids: NDArray[np.int64]
    """(N,)"""
    neighbours: int
    middle: float
    spread: float

    def of(self, vectors: NDArray[np.float32], ids: NDArray[np.int64]) -> tuple[Array, Array]:
        """Features (B, K + 1) and raw scores (B,), each image by itself; none is a neighbour of itself."""
        unit = np.sqrt(self.directions.variances.mean())
        coordinates = coordinates_and_residuals(vectors, self.directions)[0] / unit
        raw = raw_scores(vectors, ids, self.bank, self.bank_ids, self.neighbours)
        return np.column_stack([coordinates, (raw - self.middle) / self.spread]), raw


def raw_scores(
    vectors: NDArray[np.float32],
    ids: NDArray[np.int64],
    bank: NDArray[np.float32],
    bank_ids: NDArray[np.int64],
    neighbours: int,
) -> Array:
    """Mean distance of each image to its nearest bank images other than itself.

    Shapes: (B, D), (B,), (N, D), (N,) -> (B,). Units: Euclidean.
    """
    found = np.zeros(len(vectors))
    for number, (vector, one) in enumerate(zip(vectors, ids.tolist(), strict=True)):
        distances = distances_to_all(Metric.L2, vector, bank, None)
        others = distances[bank_ids != one]
        count = min(neighbours, others.size)
        found[number] = np.sort(np.partition(others, count - 1)[:count]).mean(dtype=np.float64)
    return found


def features_from(
    bank: NDArray[np.float32],
    bank_ids: NDArray[np.int64],
    compared: NDArray[np.float32],
    compared_ids: NDArray[np.int64],
    *,
    components: int,
    neighbours: int,
) -> Features:
    """Features made from these bank images, two or more, and the images that were compared."""
    known, ids = np.concatenate([bank, compared]), np.concatenate([bank_ids, compared_ids])
    raw = raw_scores(known, ids, bank, bank_ids, neighbours)
    spread = float(raw.std())
    return Features(
        directions=principal_directions(known, components),
        bank=bank,
        bank_ids=bank_ids,
        neighbours=neighbours,
        middle=float(raw.mean()),
        spread=spread if spread > 0 else 1.0,
    )
