"""Brute force in numpy: the judge of every other index, and the right choice for small sets."""

from numpy.typing import ArrayLike

from index.contract import Neighbours
from index.distances import as_count, distances_to_all, nearest
from index.rows import RowStore


class ExactIndex(RowStore):
    """Every distance of every query, then the smallest.

    Memory: beside the rows, N * 4 bytes for the query at hand.
    """

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        allowed: ArrayLike | None = None,
        exact: bool = False,  # noqa: ARG002 - it always is
    ) -> Neighbours:
        """The K nearest rows of each query. See `VectorIndex.search`."""
        k = as_count(k, what="k")
        asked = self._query_rows(queries)
        places = self._allowed_places(allowed)
        rows = self._searched.values
        ids = self._ids.values if places is None else self._ids.values[places]
        found = Neighbours.none(len(asked), k)
        k = min(k, len(ids))
        if k:
            for number, query in enumerate(asked):
                distances = distances_to_all(self.metric, query, rows, places)
                found.ids[number, :k], found.distances[number, :k] = nearest(distances, ids, k)
        return found
