"""k-means by FAISS."""

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.contract import Metric
from index.distances import as_count, as_rows
from index.errors import WidthMismatch
from index.faiss_flat import FlatIndex
from index.faiss_scan import faiss_settings


def kmeans(
    vectors: ArrayLike, k: int, *, seed: int, iterations: int = 25
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Centres that lie in the middle of their vectors, and the centre nearest to each vector.

    Shapes: vectors (N, D) -> centres (min(k, N), D) float32, assignment (N,) int64. With k >= N the vectors
            are the centres, each its own.
    Units:  Euclidean.
    Ties:   a vector between two centres goes to the lower number.
    Spare:  a centre that lost all its vectors is put beside a crowded one, off by a thousandth of its value.
    Repeats: the same seed, thread count and machine give the same centres.

    Raises:
        WidthMismatch: not two-dimensional.
        NotFinite: NaN, infinity or a length above 1e18.
        CountOutOfRange: `k` or `iterations` below one.

    Source: Lloyd's iterations as in FAISS; every vector takes part (FAISS would draw 256 for each centre).
    """
    k = as_count(k, what="k")
    iterations = as_count(iterations, what="iterations")
    given = np.asarray(vectors)
    if given.ndim != 2 or given.shape[1] < 1:
        raise WidthMismatch(f"`vectors` must have two dimensions; got shape {given.shape}.")
    rows = as_rows(given, given.shape[1], what="vectors")
    if k >= len(rows):
        return rows.copy(), np.arange(len(rows), dtype=np.int64)
    with faiss_settings(rows.shape[1]):
        clustering = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=iterations,
            seed=seed % 2**31,  # FAISS takes an int
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        clustering.train(rows)
    centres: NDArray[np.float32] = np.array(clustering.centroids, dtype=np.float32).reshape(k, -1)
    index = FlatIndex(width=rows.shape[1], metric=Metric.L2)
    index.add(np.arange(k), centres)
    return centres, index.search(rows, 1).ids[:, 0]
