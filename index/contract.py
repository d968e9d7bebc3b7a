"""The words of this package: what every index promises.

Letters used in every docstring: Q queries, N rows in the index, D width, K neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.snapshot import StoredArray

NO_ID = -1  # stands where fewer than K neighbours exist


class Metric(StrEnum):
    """Which distance; for both, smaller is nearer."""

    L2 = "l2"
    """Euclidean, not squared, in the unit of the vectors; [0, inf)."""

    COSINE = "cosine"
    """1 - cos, [0, 2]; a vector of zeros is at distance 1 from everything, itself included."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Ids and distances of the nearest rows of each query.

    Shapes: ids (Q, K) int64, distances (Q, K) float32.
    Ties:   nearest first; among equal distances the lowest id first.
    Where fewer than K rows could be returned the tail holds id -1 at distance infinity.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]

    @classmethod
    def none(cls, n_queries: int, k: int) -> "Neighbours":
        """Neighbours of `n_queries` queries that found nothing, to be filled in."""
        return cls(
            np.full((n_queries, k), NO_ID, dtype=np.int64),
            np.full((n_queries, k), np.inf, dtype=np.float32),
        )


class VectorIndex(Protocol):
    """Rows under caller's ids, searched for the nearest.

    Searches may run at the same time as each other, never at the same time as `add` or `remove`: the caller
    holds the lock. A distance is always computed in float32 from the stored row with one fixed order of
    additions, whatever found the row; so an answer is the same, bit for bit, for a query alone and in any
    batch.
    """

    @property
    def metric(self) -> Metric: ...

    @property
    def width(self) -> int: ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of anonymous memory."""
        ...

    @property
    def mapped_bytes(self) -> int:
        """Bytes of scratch files: page cache, which the system may take back."""
        ...

    def __len__(self) -> int: ...

    def reserve(self, extra: int) -> None:
        """Claim room for so many more rows at once, so that adding them moves none of those already there."""
        ...

    def ids(self) -> NDArray[np.int64]:
        """All ids, ascending; a copy."""
        ...

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Store one row per id; either all or, on an error, none.

        Shapes: ids (N,) whole numbers from 0, vectors (N, D). The arrays are copied, never changed or kept.

        Raises:
            WidthMismatch, CountMismatch, NotFinite, IdInvalid: the arrays cannot be used.
            IdTaken: an id is there already, or twice in `ids`.
        """
        ...

    def remove(self, ids: ArrayLike) -> int:
        """How many of the ids were there; none of them is afterwards."""
        ...

    def vectors(self, ids: ArrayLike) -> NDArray[np.float32]:
        """The rows of these ids as they were added, in the order asked for; a copy.

        Raises:
            IdUnknown: an id is not there.
        """
        ...

    def search(
        self, queries: ArrayLike, k: int, *, allowed: ArrayLike | None = None, exact: bool = False
    ) -> Neighbours:
        """The K nearest rows of each query, among `allowed` only where it is given.

        An index that may miss a neighbour does not where `exact` is set; the others never do.

        Shapes: queries (Q, D), allowed (any,) ids, soonest where they ascend as int64; those that are not in the
                index are ignored.

        Raises:
            WidthMismatch, NotFinite: the queries cannot be used.
            CountOutOfRange: `k` is below one.
        """
        ...

    def export_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays by name, views where possible, and facts: what `restore` makes the same index from.

        The views are valid until the next change, so the caller keeps writers away until they are written.
        """
        ...

    def restore(self, arrays: Mapping[str, StoredArray], facts: Mapping[str, Any]) -> None:
        """Fills this index, which must be empty, with what was exported; on an error it stays empty.

        Afterwards every search answers as before, to the bit.

        Raises:
            SnapshotDamaged: what the arrays hold is not what was written, or not of this width and metric.
            IdTaken: the index is not empty.
        """
        ...
