"""The libraries that search is compared with: hnswlib and usearch where they are installed, FAISS's plain index."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import faiss
import numpy as np
from numpy.typing import NDArray

from index import Neighbours
from index.faiss_scan import SHIPPED_LIMIT

LINKS = 16
BUILD_BREADTH = 120

Search = Callable[[NDArray[np.float32]], Neighbours]
SearchWith = Callable[[NDArray[np.float32], int], Neighbours]


def installed(name: str) -> str | None:
    """The version of a package, None where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def plain_faiss(stored: NDArray[np.float32], k: int, threads: int) -> tuple[Search, Search]:
    """`IndexFlatL2` as shipped, and as it is fastest: multiplying matrices from four queries on."""
    plain = faiss.IndexFlatL2(stored.shape[1])
    plain.add(stored)

    def search(asked: NDArray[np.float32], limit: int) -> Neighbours:
        faiss.omp_set_num_threads(threads)
        faiss.cvar.distance_compute_blas_threshold = limit
        distances, ids = plain.search(asked, k)
        return Neighbours(ids, np.sqrt(np.maximum(distances, 0)))

    return lambda asked: search(asked, SHIPPED_LIMIT), lambda asked: search(asked, 4 * stored.shape[1])


def hnswlib(stored: NDArray[np.float32], k: int, threads: int) -> tuple[SearchWith, float]:
    """Search by breadth, and bytes in all."""
    graph = import_module("hnswlib").Index("l2", stored.shape[1])
    graph.init_index(len(stored), ef_construction=BUILD_BREADTH, M=LINKS)
    graph.set_num_threads(threads)
    graph.add_items(stored)

    def search(asked: NDArray[np.float32], breadth: int) -> Neighbours:
        graph.set_ef(breadth)
        ids, squares = graph.knn_query(asked, k)
        return Neighbours(ids.astype(np.int64), np.sqrt(squares))

    return search, float(graph.index_file_size())


def usearch(stored: NDArray[np.float32], k: int, threads: int) -> tuple[SearchWith, float]:
    """Search by breadth, and bytes in all."""
    graph = import_module("usearch.index").Index(
        ndim=stored.shape[1], metric="l2sq", dtype="f32", connectivity=LINKS, expansion_add=BUILD_BREADTH
    )
    graph.add(np.arange(len(stored)), stored, threads=threads)

    def search(asked: NDArray[np.float32], breadth: int) -> Neighbours:
        graph.expansion_search = breadth
        matches = graph.search(asked, k, threads=threads)
        shape = (len(asked), k)
        return Neighbours(
            np.asarray(matches.keys).astype(np.int64).reshape(shape), np.sqrt(matches.distances).reshape(shape)
        )

    return search, float(graph.memory_usage)
