"""A graph of near neighbours over rows at a byte a dimension, by FAISS."""

from collections.abc import Iterator, Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.accelerator import Progress
from index.approximate import Effort
from index.faiss_bytes import deserialised, serialised
from index.faiss_scan import faiss_settings
from index.huge_pages import advise_huge_pages
from index.snapshot import StoredArray
from index.structures import StructureName
from index.threads import threads as threads_set

LINKS = 16  # twice as many on the lowest level
BUILD_BREADTH = 120
BREADTHS = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LISTED = (24, 48, 96)  # twenty-four outweigh what eight bits confuse on most data
MEASURED_COST = 0.6  # of a listed row, in candidates looked at: about 1.3 us against 2 us at width 512 (AVX2)
SAMPLE_ROWS = 5000

# The bytes span so many times the deviation from the centre that all but one number in ten thousand keep to. Rows are
# rarely cut off at the ends; the room beyond is for queries, which may be stranger than any row.
SPAN = 1.5
FAR = 0.05  # of a query's distance from the centre: where more is cut off, bytes do not tell which row is near it
KEPT_SHARE = 0.9999


def trained_graph(
    rows: NDArray[np.float32],
    order: NDArray[np.int64],
    seed: int,
    threads: int,  # noqa: ARG001 - training takes a moment
    progress: Progress,  # noqa: ARG001
) -> "Graph":
    """A graph without nodes. See `index.approximate.Trained`."""
    random = np.random.default_rng(seed)
    sample = np.sort(random.permutation(len(order))[:SAMPLE_ROWS])
    return Graph.trained(rows[order[sample]])


class Graph:
    """A hierarchical graph; its nodes are rows at one byte a dimension, and so are queries while it is walked.

    All dimensions share one unit, so that squared distances of bytes are those of the rows, in units. Bytes are
    compared four times as fast as bytes are made numbers (21 and 89 ns a pair of width 512, one core with AVX2).

    Memory: D + 144 bytes a row.

    Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical
            Navigable Small World graphs, arXiv:1603.09320.
    """

    structure: StructureName = "hnsw"

    def __init__(self, graph: faiss.IndexHNSWSQ, centre: NDArray[np.float32], unit: float) -> None:
        self._graph = graph
        self._centre = centre
        self._unit = np.float32(unit)
        self._width = graph.d
        self._asked: dict[int, Any] = {}  # parameters of searches by breadth: making them takes a while
        advise_huge_pages(faiss.downcast_index(graph.storage).codes)  # type: ignore[attr-defined]

    @classmethod
    def trained(cls, sample: NDArray[np.float32]) -> "Graph":
        """A graph without nodes whose bytes fit the sample."""
        width = sample.shape[1]
        graph = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit_direct, LINKS)  # type: ignore[arg-type]
        graph.hnsw.efConstruction = BUILD_BREADTH
        centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviations = np.abs(sample - centre).reshape(-1)
        at = min(len(deviations) - 1, int(KEPT_SHARE * len(deviations)))
        reach = float(np.partition(deviations, at)[at])
        return cls(graph, centre, SPAN * reach / 127 or 1.0)

    @classmethod
    def restore(cls, arrays: Mapping[str, StoredArray]) -> "Graph":
        """The graph of which `export` gave the arrays."""
        graph = deserialised(arrays["structure"].view(), faiss.IndexHNSWSQ)
        return cls(graph, arrays["centre"].read(), float(arrays["unit"].read()))

    def export(self) -> dict[str, NDArray[Any]]:
        """Its arrays."""
        return {"structure": serialised(self._graph), "centre": self._centre, "unit": np.asarray(self._unit)}

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes and links."""
        bytes_each: int = self._width + 4 * (2 * LINKS) + 16
        return int(self._graph.ntotal) * bytes_each

    def add(self, rows: NDArray[np.float32], threads: int | None) -> None:
        """Appends nodes."""
        with faiss_settings(self._width, threads):
            self._graph.add(self._coded(rows))

    def search(
        self, queries: NDArray[np.float32], effort: Effort, chosen: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """Nodes (Q, listed), roughly nearest first; none for a query that is far outside of what bytes can tell."""
        breadth = max(effort.breadth, effort.listed)
        if chosen is None:
            asked = self._asked.get(breadth) or self._asked.setdefault(breadth, _parameters(breadth))
        else:
            asked = _parameters(breadth, sel=faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(chosen)))
        # As FAISS's own `search` does, without its checks and its handling of types: they take as long as the graph.
        coded = self._coded(queries)
        nodes = np.empty((len(queries), effort.listed), dtype=np.int64)
        rough = np.empty(nodes.shape, dtype=np.float32)
        pointers = [faiss.swig_ptr(array) for array in (coded, rough, nodes)]
        with faiss_settings(self._width, threads_set()):
            self._graph.search_c(len(coded), pointers[0], effort.listed, pointers[1], pointers[2], asked)  # type: ignore[attr-defined]
        far = self._far(queries, coded)
        if far is not None:
            nodes[far] = -1
        return nodes

    def _far(self, queries: NDArray[np.float32], coded: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Which of the queries their bytes misrepresent; None where no byte is at an end of its range."""
        if coded.min() > 0.0 and coded.max() < 255.0:
            return None
        from_centre = queries.astype(np.float64) - self._centre
        cut_off = from_centre - (coded - 128.0) * self._unit
        lengths = [np.sqrt(np.add.reduce(one * one, axis=1)) for one in (cut_off, from_centre)]
        far: NDArray[np.bool_] = lengths[0] > FAR * lengths[1] + np.sqrt(self._width) * self._unit  # beyond rounding
        return far

    def efforts(self) -> Iterator[list[Effort]]:
        """Of each breadth, those that list no more than it."""
        for breadth in BREADTHS:
            yield [Effort(breadth, listed) for listed in LISTED if listed <= breadth]

    def cost(self, effort: Effort) -> float:
        """Candidates looked at."""
        return effort.breadth + MEASURED_COST * effort.listed

    def _coded(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whole numbers from 0 to 255, of which FAISS makes bytes."""
        coded = rows - self._centre
        coded /= self._unit
        coded += np.float32(128.5)
        np.floor(coded, out=coded)
        return np.clip(coded, 0.0, 255.0, out=coded)


def _parameters(breadth: int, **more: Any) -> Any:
    return faiss.SearchParametersHNSW(efSearch=breadth, **more)  # type: ignore[attr-defined]
