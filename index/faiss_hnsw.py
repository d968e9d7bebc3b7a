"""A graph of near neighbours over 8-bit rows, by FAISS."""

from collections.abc import Iterator

import faiss
import numpy as np
from numpy.typing import NDArray

from index.accelerator import Progress
from index.approximate import Effort
from index.faiss_bytes import deserialised, serialised
from index.faiss_scan import prepare
from index.structures import StructureName
from index.threads import threads as threads_set

LINKS = 16  # twice as many on the lowest level
BUILD_BREADTH = 120
BREADTHS = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TRAINING_ROWS = 50_000


def trained_graph(
    rows: NDArray[np.float32],
    order: NDArray[np.int64],
    seed: int,
    threads: int,
    progress: Progress,  # noqa: ARG001 - training takes a moment
) -> "Graph":
    """A graph without nodes. See `index.approximate.Trained`."""
    random = np.random.default_rng(seed)
    sample = np.sort(random.permutation(len(order))[:TRAINING_ROWS])
    return Graph.trained(rows[order[sample]], threads)


class Graph:
    """A hierarchical graph; its nodes are rows at one byte a dimension.

    Memory: D + 144 bytes a row.

    Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical
            Navigable Small World graphs, arXiv:1603.09320.
    """

    structure: StructureName = "hnsw"

    def __init__(self, graph: faiss.IndexHNSWSQ) -> None:
        self._graph = graph
        self._width = graph.d

    @classmethod
    def trained(cls, sample: NDArray[np.float32], threads: int) -> "Graph":
        """A graph without nodes whose codes fit the sample."""
        width = sample.shape[1]
        graph = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, LINKS)  # type: ignore[arg-type]
        graph.hnsw.efConstruction = BUILD_BREADTH
        prepare(width, threads)
        graph.train(sample)
        return cls(graph)

    @classmethod
    def restore(cls, data: NDArray[np.uint8]) -> "Graph":
        """The graph of which `export` gave the bytes."""
        return cls(deserialised(data, faiss.IndexHNSWSQ))

    def export(self) -> NDArray[np.uint8]:
        """Its bytes."""
        return serialised(self._graph)

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes and links."""
        bytes_each: int = self._width + 4 * (2 * LINKS) + 16
        return int(self._graph.ntotal) * bytes_each

    def add(self, rows: NDArray[np.float32], threads: int | None) -> None:
        """Appends nodes."""
        prepare(self._width, threads)
        self._graph.add(rows)

    def search(
        self, queries: NDArray[np.float32], effort: Effort, chosen: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """Nodes (Q, listed), roughly nearest first."""
        prepare(self._width, threads_set())
        selector = None if chosen is None else faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(chosen))
        asked = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
            efSearch=max(effort.breadth, effort.listed), sel=selector
        )
        nodes: NDArray[np.int64] = self._graph.search(queries, effort.listed, params=asked)[1]
        return nodes

    def efforts(self) -> Iterator[list[Effort]]:
        """One for each breadth; twenty-four candidates outweigh what eight bits confuse."""
        for breadth in BREADTHS:
            yield [Effort(breadth, 24)]

    def cost(self, effort: Effort) -> float:
        """Candidates looked at."""
        return effort.breadth
