"""FAISS's brute-force kernels over rows that we hold, and the settings they need."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
from numpy.typing import NDArray

from index.contract import Metric
from index.threads import threads

# From this many queries on, FAISS multiplies matrices instead of comparing pair by pair. Its own limit, counted in
# numbers and not in queries, is 128,000: 250 queries of width 512. Measured on 50,000 rows of width 512, one core
# (AVX2), pair by pair and by product in ms: one query 8 and 23, two 16 and 23, three 24 and 27, four 29 and 20,
# eight 62 and 23, sixteen 121 and 28; of width 64 and 2048 it is the same from four on (best of seven, faiss 1.15.1).
PRODUCT_QUERIES = 4

# Up to so many multiplications one thread is enough. Two take as long, or half as long (32 queries on 5,000 rows:
# 2.9 ms, one thread 4.7), but then the second one spins for 2 ms more at the expense of whoever else computes, and
# beside the threads of others both may take 20 ms. One query takes one thread half the time of two, whatever the rows
# (20,000 and 200,000 rows of width 512: 1.2 ms and 14; two threads 3.4 and 28; best of three, faiss 1.15.1).
SMALL_PRODUCT = 2**26

SHIPPED_LIMIT = faiss.cvar.distance_compute_blas_threshold  # its own limit, before `faiss_settings` changes it
UNTOLD_THREADS = faiss.omp_get_max_threads()  # what FAISS would take


@contextmanager
def faiss_settings(width: int, threads_max: int | None = None) -> Iterator[None]:
    """Within it the settings hold for the calling thread and rows of this width; each use of FAISS is within it."""
    # OpenMP keeps the thread count for each calling thread separately: set once at start, it would be lost on
    # the threads that serve requests. Torch may share it, and is to find it as it was.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads_max or threads() or UNTOLD_THREADS)
    faiss.cvar.distance_compute_blas_threshold = PRODUCT_QUERIES * width
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def rough_nearest(
    metric: Metric,
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    k: int,
    selected: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rough nearness and place of the k rows nearest to each query; near-ties in no promised order.

    Shapes: queries (Q, D), rows (N, D), selected (P,) places with k <= P <= N -> (Q, k), (Q, k).
    Units:  squared distance for l2, minus the inner product for cosine; smaller is nearer.
    """
    width = rows.shape[1]
    rough = np.empty((len(queries), k), dtype=np.float32)
    places = np.empty((len(queries), k), dtype=np.int64)
    selector = None
    if selected is not None:
        chosen = np.zeros(len(rows), dtype=np.bool_)
        chosen[selected] = True
        bits = np.packbits(chosen, bitorder="little")  # a name of its own: FAISS keeps only its address
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    sizes = (width, len(queries), len(rows), k)
    arrays = [faiss.swig_ptr(array) for array in (queries, rows, rough, places)]
    is_small = len(queries) == 1 or len(queries) * rows.size <= SMALL_PRODUCT
    with faiss_settings(width, 1 if is_small else None):
        if metric is Metric.L2:
            faiss.knn_L2sqr(*arrays[:2], *sizes, *arrays[2:], None, selector)  # type: ignore[call-arg]
        else:
            faiss.knn_inner_product(*arrays[:2], *sizes, *arrays[2:], selector)  # type: ignore[call-arg]
            np.negative(rough, out=rough)
    return rough, places
