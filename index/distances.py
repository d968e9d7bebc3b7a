"""The one way to measure a distance, shared by every index, so that none differs from another in a bit."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.contract import Metric
from index.errors import CountOutOfRange, IdInvalid, NotFinite, WidthMismatch

LENGTH_MAX = 1e18  # (2 * LENGTH_MAX) ** 2 still fits in float32, so no distance can overflow
UNIT_TOLERANCE = 4e-7  # seven roundings of float32: rows that were brought to unit length in float32 pass
HALF = np.float32(0.5)
BLANK_TOLERANCE = np.float32(1e-4)  # around it; far more than a unit row can be off
BLOCK_ROWS = 512  # 1 MB of differences at width 512: the block stays in the second-level cache


def as_ids(ids: ArrayLike, *, what: str = "ids") -> NDArray[np.int64]:
    """The ids as int64 (n,).

    Raises:
        IdInvalid: not whole numbers in one dimension.
    """
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise IdInvalid(f"`{what}` must be a list of whole numbers; got {given.dtype} of shape {given.shape}.")
    return given.astype(np.int64, copy=False)


def as_rows(vectors: ArrayLike, width: int, *, what: str) -> NDArray[np.float32]:
    """The vectors as float32 (n, D) in C order; the caller's own memory where possible, so never write to it.

    Raises:
        WidthMismatch: not two-dimensional or not `width` wide.
        NotFinite: NaN, infinity, a length above 1e18, or no numbers at all.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.shape[1] != width:
        raise WidthMismatch(f"`{what}` must have shape (rows, {width}); got {given.shape}.")
    if given.dtype.kind not in "fiu":
        raise NotFinite(f"`{what}` must be real numbers; got {given.dtype}.")
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(given, dtype=np.float32)
        squares = np.einsum("nd,nd->n", rows, rows)
        usable = squares <= LENGTH_MAX**2  # false for NaN too
    if np.count_nonzero(usable) < len(rows):
        raise NotFinite(
            f"`{what}` must be finite and of length {LENGTH_MAX:g} at most; "
            f"row {int(np.argmin(usable))} of {len(rows)} is not."
        )
    return rows


def as_count(count: int, *, what: str) -> int:
    """The count, when it is a whole number from one.

    Raises:
        CountOutOfRange: it is not.
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise CountOutOfRange(f"`{what}` must be a whole number from 1; got {count!r}.")
    return int(count)


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows at unit length; rows of zeros and rows that are at unit length already are left as they are.

    Shapes: (n, D) -> (n, D); the argument itself when nothing had to change, so unit rows cost no memory.
    Ties:   applying it twice changes no bit, which is what the tolerance is for.
    """
    result = rows
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS].astype(np.float64)
        lengths = np.sqrt(np.add.reduce(block * block, axis=1))
        other = (np.abs(lengths - 1.0) > UNIT_TOLERANCE) & (lengths > 0)
        n_other = np.count_nonzero(other)
        if n_other and result is rows:
            result = rows.copy()
        part = result[start : start + BLOCK_ROWS]
        if n_other == len(block):
            np.divide(block, lengths[:, None], out=part, casting="same_kind")
        elif n_other:
            part[other] = block[other] / lengths[other, None]
    return result


def pair_distances(metric: Metric, queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each query to the row beside it.

    Shapes: queries (..., D), rows (..., D), broadcast against each other -> (...). Unit rows for cosine.
    Units:  as `Metric` says; differences below about 1e-19 square to nothing in float32.
    Memory: the differences, so callers go block by block.

    The sum runs along the last axis of a contiguous array: numpy then adds in an order that depends on D
    alone. Neither a matrix product nor `einsum` does that (`einsum` cuts its sums every 8192 numbers, in the
    middle of a row too), and a score must not depend on the other images of its batch.
    """
    difference = rows - queries
    np.multiply(difference, difference, out=difference)
    squares: NDArray[np.float32] = np.add.reduce(difference, axis=-1)
    if metric is Metric.L2:
        return np.sqrt(squares, out=squares)
    # For unit vectors |u - v|^2 / 2 = 1 - cos, without the cancellation of the right-hand side.
    np.multiply(squares, HALF, out=squares)
    np.minimum(squares, np.float32(2.0), out=squares)
    # A row of zeros comes out at 0.5 from one of unit length, and at 0 from another; nobody looks for it elsewhere.
    if np.count_nonzero((squares == 0.0) | (np.abs(squares - HALF) < BLANK_TOLERANCE)):
        blank = ~(rows.any(axis=-1) & queries.any(axis=-1))
        squares[blank] = 1.0
    return squares


def distances_to_all(
    metric: Metric, query: NDArray[np.float32], rows: NDArray[np.float32], places: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    """Distance of one query to every row, or to the rows at these places.

    Shapes: query (D,), rows (N, D), places (P,) -> (N,) or (P,).
    Memory: one block of differences beside the result.
    """
    n = len(rows) if places is None else len(places)
    result = np.empty(n, dtype=np.float32)
    for start in range(0, n, BLOCK_ROWS):
        stop = min(n, start + BLOCK_ROWS)
        block = rows[start:stop] if places is None else rows[places[start:stop]]
        result[start:stop] = pair_distances(metric, query, block)
    return result


def nearest(
    distances: NDArray[np.float32], ids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and distances of the k smallest distances, equal ones by lowest id.

    Shapes: (n,), (n,) -> (k,), (k,) with k <= n.
    """
    if k < len(distances):
        # Every tie with the k-th stays in, so that the lowest ids among them can be found.
        near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
        distances, ids = distances[near], ids[near]
    order = np.lexsort((ids, distances))[:k]
    return ids[order], distances[order]
