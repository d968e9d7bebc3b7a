"""Exact search through FAISS: it lists candidates, numpy measures them, a bound proves none is missing."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.contract import Metric, Neighbours
from index.distances import UNIT_TOLERANCE, as_count, distances_to_all, nearest, pair_distances
from index.faiss_scan import PRODUCT_QUERIES, rough_nearest
from index.rows import RowStore

SHORTLIST_EXTRA = 16  # beyond k; near-ties within the rounding of a product are fewer than this on most data
SHORTLIST_WIDER = 16  # factor of the second and third attempt
SHORTLIST_MAX = 8192  # a longer list of near-ties is settled by measuring every row
LIST_PAIRS = 1 << 20  # about 32 MB of short lists at a time
MEASURED_PAIRS = 1024  # 2 MB of differences at width 512

# Restricted to few rows, copying them together and multiplying is faster than letting FAISS skip the others;
# with few queries and many rows it is the other way round. Measured on 100,000 x 512 rows, one core, best of
# three, short list of 18, selector / copy in ms: one query 0.4 / 0.3 for 1 % of the rows, 0.8 / 0.9 for 3 %,
# 3.0 / 4.0 for 10 %, 7.6 / 11.6 for 30 %; 16 queries 4.6 / 1.0, 8.5 / 3.8, 42 / 12, 113 / 33.
SELECTOR_QUERIES_BELOW = PRODUCT_QUERIES
SELECTOR_SHARE = 0.05
COPIED_ROWS = 1024

ROUNDING = 2.0**-24  # unit roundoff of float32
MEASURED_ERROR = 1e-5  # relative, of a squared distance as `pair_distances` adds it; true bound about 40 roundings
UNDERFLOW = 1e-37  # what squares below float32 may lose in all


class FlatIndex(RowStore):
    """The same answers as `ExactIndex`, to the bit, at the speed of FAISS.

    FAISS compares by matrix product, whose rounding swaps near-ties, differently for each size of batch. So
    its short list is longer than k, is measured again row by row, and counts only when its farthest row lies
    beyond the k-th by more than that rounding can amount to; else the list is widened, and in the end every
    row is measured.

    Memory: beside the rows, 32 MB of short lists and, when restricted, 2 MB of copied rows.
    Thousands of rows equal to one another cost a full measurement for each query near them.
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
        return self.nearest_at(self._query_rows(queries), k, self._allowed_places(allowed))

    def nearest_at(self, asked: NDArray[np.float32], k: int, places: NDArray[np.int64] | None) -> Neighbours:
        """The K nearest of the rows at these places, ascending, or of all; `asked` as rows are searched."""
        n_rows = len(self) if places is None else len(places)
        found_k = min(k, n_rows)
        length = found_k + found_k // 8 + SHORTLIST_EXTRA
        longest = max(length, SHORTLIST_MAX)
        if len(asked) == 1 and found_k == k and _is_shorter(length, n_rows, 1):
            alone = self._nearest_to_one(asked, k, length, places)
            if alone is not None:
                return alone
            length *= SHORTLIST_WIDER
        found = Neighbours.none(len(asked), k)
        if not found_k:
            return found
        unproven = np.arange(len(asked))
        while length <= longest and _is_shorter(length, n_rows, len(unproven)):
            step = max(1, LIST_PAIRS // length)
            proven = [
                self._search_shortlist(asked, unproven[start : start + step], found_k, length, places, found)
                for start in range(0, len(unproven), step)
            ]
            unproven = unproven[~np.concatenate(proven)]
            length *= SHORTLIST_WIDER
        rows = self._searched.values
        ids = self._ids.values if places is None else self._ids.values[places]
        for number in unproven:
            distances = distances_to_all(self.metric, asked[number], rows, places)
            found.ids[number, :found_k], found.distances[number, :found_k] = nearest(distances, ids, found_k)
        return found

    def _nearest_to_one(
        self, query: NDArray[np.float32], k: int, length: int, places: NDArray[np.int64] | None
    ) -> Neighbours | None:
        """The neighbours of one query, (1, D); None where a short list of this length does not prove them.

        As `_search_shortlist` and with its bits, in a third of the calls of numpy: where many threads ask for one query
        each, one gives way to the others at every such call, and waits for its turn again.
        """
        rough, listed = self._shortlist(query, length, places)
        distances = pair_distances(self.metric, query, self._searched.values.take(listed[0], axis=0))
        ids = map(self._ids.values.item, listed[0].tolist())
        nearest = sorted(zip(distances.tolist(), ids, strict=True))[:k]
        kth = np.array([nearest[-1][0]], np.float64)
        if max(rough[0].tolist()) <= farthest_rough(self.metric, self.width, self._lengths(query), kth)[0]:
            return None
        return Neighbours(
            np.array([[one for _, one in nearest]], np.int64), np.array([[one for one, _ in nearest]], np.float32)
        )

    def _search_shortlist(
        self,
        asked: NDArray[np.float32],
        numbers: NDArray[np.int64],
        k: int,
        length: int,
        places: NDArray[np.int64] | None,
        found: Neighbours,
    ) -> NDArray[np.bool_]:
        """Fills in the neighbours of these queries and says for which of them they are proven."""
        queries = asked[numbers]
        rough, listed = self._shortlist(queries, length, places)
        distances = self.measured(queries, listed)
        ids = self._ids.values[listed]
        order = np.lexsort((ids, distances), axis=-1)[:, :k]
        row = np.arange(len(order))[:, None]
        found.ids[numbers, :k], found.distances[numbers, :k] = ids[row, order], distances[row, order]
        kth = found.distances[numbers, k - 1].astype(np.float64)
        farthest = farthest_rough(self.metric, self.width, self._lengths(queries), kth)
        proven: NDArray[np.bool_] = rough.max(axis=1) > farthest
        return proven

    def _lengths(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Lengths of queries (Q, D) as they are searched, (Q,)."""
        if self.metric is Metric.COSINE:
            return np.ones(len(queries))  # to within the tolerance
        lengths: NDArray[np.float64] = np.sqrt(np.add.reduce(queries.astype(np.float64) ** 2, axis=1))
        return lengths

    def _shortlist(
        self, queries: NDArray[np.float32], length: int, places: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """`length` places for each query and their rough nearness; no other row is roughly nearer."""
        rows = self._searched.values
        if places is None:
            return rough_nearest(self.metric, queries, rows, length)
        if len(queries) < SELECTOR_QUERIES_BELOW and len(places) > SELECTOR_SHARE * len(rows):
            return rough_nearest(self.metric, queries, rows, length, places)
        best_rough = np.empty((len(queries), 0), dtype=np.float32)
        best_places = np.empty((len(queries), 0), dtype=np.int64)
        step = max(COPIED_ROWS, length)
        for start in range(0, len(places), step):
            some = places[start : start + step]
            rough, at = rough_nearest(self.metric, queries, rows[some], min(length, len(some)))
            best_rough = np.concatenate((best_rough, rough), axis=1)
            best_places = np.concatenate((best_places, some[at]), axis=1)
            if best_rough.shape[1] > length:
                kept = np.argpartition(best_rough, length - 1, axis=1)[:, :length]
                best_rough = np.take_along_axis(best_rough, kept, axis=1)
                best_places = np.take_along_axis(best_places, kept, axis=1)
        return best_rough, best_places

    def measured(self, queries: NDArray[np.float32], listed: NDArray[np.int64]) -> NDArray[np.float32]:
        """Distance of each query to each of its listed rows."""
        rows = self._searched.values
        distances = np.empty(listed.shape, dtype=np.float32)
        step = max(1, MEASURED_PAIRS // listed.shape[1])
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            distances[some] = pair_distances(self.metric, queries[some, None], rows[listed[some]])
        return distances


def _is_shorter(length: int, n_rows: int, n_queries: int) -> bool:
    """Whether a short list takes less time than measuring every row.

    Measured at width 512: 2,000 queries on 60 rows 110 ms against 430 ms, one query on 80 rows 0.22 against 0.14.
    """
    return n_queries > 0 and (1 if n_queries >= PRODUCT_QUERIES else 4) * length < n_rows


def farthest_rough(
    metric: Metric, width: int, lengths: NDArray[np.float64], kth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The largest rough nearness that a row within the measured distance `kth` can have.

    Shapes: lengths of the queries (Q,), kth (Q,) -> (Q,).

    A product of width D, added in any order, is off by at most g |x||y| with g = nu / (1 - nu), n = D and
    u = 2**-24, and |x|^2 + |y|^2 - 2xy by g (|x| + |y|)^2 with a few roundings more in n. A row within `kth`
    of the query is no longer than |x| + kth, so the bound needs nothing from rows far away.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1 (error of inner products).
    """
    roundings = (width + 8) * ROUNDING
    growth = roundings / (1.0 - roundings) if roundings < 1.0 else np.inf
    if metric is Metric.L2:
        return kth**2 * (1 + MEASURED_ERROR) + growth * (2 * lengths + kth) ** 2 + UNDERFLOW
    # -xy = |x - y|^2 / 2 - (|x|^2 + |y|^2) / 2, where both lengths are 1 to within the tolerance
    return kth * (1 + MEASURED_ERROR) - 1.0 + 3 * UNIT_TOLERANCE + growth * (1 + 3 * UNIT_TOLERANCE)
