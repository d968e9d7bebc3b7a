"""Lists of rows around centres, at half a byte for four dimensions, by FAISS."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.accelerator import Progress
from index.approximate import Effort
from index.faiss_bytes import deserialised, serialised
from index.faiss_scan import faiss_settings
from index.snapshot import StoredArray
from index.structures import StructureName
from index.threads import threads as threads_set

PART_WIDTH = 4  # dimensions in half a byte
CENTRES_PER_ROOT = 4.0  # of the number of rows
ROWS_PER_CENTRE = 30  # at least; also what a centre is trained on
TRAINING_PER_CENTRE = 64
ITERATIONS = 10
CENTRE_LINKS = 32
LISTED = (24, 32, 48, 64, 96, 128, 192, 256)
MEASURED_COST = 170.0  # of one row, in rows passed over: 1.3 us against 7.5 ns at width 512 (AVX2)


def trained_lists(
    rows: NDArray[np.float32], order: NDArray[np.int64], seed: int, threads: int, progress: Progress
) -> "Lists":
    """Lists without rows. See `index.approximate.Trained`."""
    n_centres = int(np.clip(CENTRES_PER_ROOT * len(order) ** 0.5, 1, max(1, len(order) // ROWS_PER_CENTRE)))
    sample = np.random.default_rng(seed).permutation(len(order))[: TRAINING_PER_CENTRE * n_centres]
    return Lists.trained(rows[order[np.sort(sample)]], n_centres, seed, threads, lambda: progress(0, len(rows)))


class Lists:
    """An inverted file with product codes.

    Memory: D / 8 + 8 bytes a row and 4 * sqrt(N) centres.

    Source: Jegou, Douze and Schmid, Product quantization for nearest neighbor search, section IV (inverted file);
            Andre, Kermarrec and Le Scouarnec, Quicker ADC, arXiv:1812.09162 (codes compared in registers).
    """

    structure: StructureName = "ivf"

    def __init__(self, lists: faiss.IndexIVFPQFastScan, width: int, centres: faiss.Index | None = None) -> None:
        self._lists = lists
        self._centres = centres  # FAISS keeps its address alone; None where the lists own it
        self._width = width

    @classmethod
    def trained(
        cls, sample: NDArray[np.float32], n_centres: int, seed: int, threads: int, between: Callable[[], None]
    ) -> "Lists":
        """Lists without rows whose centres and codes fit the sample; `between` is called now and then."""
        given_width = sample.shape[1]
        sample = _padded(sample)
        width = sample.shape[1]
        middles = None
        for iteration in range(ITERATIONS):  # one at a time: together they may take minutes
            with faiss_settings(width, threads):
                clustering = faiss.Kmeans(
                    width,
                    n_centres,
                    niter=1,
                    seed=(seed + iteration) % 2**31,
                    min_points_per_centroid=1,
                    max_points_per_centroid=len(sample),
                )
                clustering.train(sample, init_centroids=middles)
            middles = clustering.centroids
            between()
        # A graph finds the nearest centres of each query alone; a matrix product would let them depend on the batch.
        centres = faiss.IndexHNSWFlat(width, CENTRE_LINKS)
        with faiss_settings(width, 1):
            centres.add(np.asarray(middles, dtype=np.float32))
        lists = faiss.IndexIVFPQFastScan(centres, width, n_centres, width // PART_WIDTH, 4)
        with faiss_settings(width, threads):
            lists.train(sample)
        return cls(lists, given_width, centres)

    @classmethod
    def restore(cls, arrays: Mapping[str, StoredArray], width: int) -> "Lists":
        """The lists of which `export` gave the arrays."""
        return cls(deserialised(arrays["structure"].view(), faiss.IndexIVFPQFastScan), width)

    def export(self) -> dict[str, NDArray[Any]]:
        """Their arrays."""
        return {"structure": serialised(self._lists)}

    @property
    def memory_bytes(self) -> int:
        """Bytes of codes and centres."""
        width = self._lists.d
        return int(self._lists.ntotal) * (width // (2 * PART_WIDTH) + 8) + self._lists.nlist * (width + 72) * 4

    def add(self, rows: NDArray[np.float32], threads: int | None) -> None:
        """Appends entries."""
        with faiss_settings(self._width, threads):
            self._lists.add(_padded(rows))

    def search(
        self, queries: NDArray[np.float32], effort: Effort, chosen: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """Entries (Q, listed), roughly nearest first."""
        selector = None if chosen is None else faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(chosen))
        breadth = min(effort.breadth, self._lists.nlist)
        of_centres = faiss.SearchParametersHNSW(efSearch=2 * breadth + 16)  # type: ignore[attr-defined]
        asked = faiss.SearchParametersIVF(  # type: ignore[call-arg]
            nprobe=breadth, sel=selector, quantizer_params=of_centres
        )
        padded = _padded(queries)
        entries = np.empty((len(queries), effort.listed), dtype=np.int64)

        def work(some: range) -> None:
            with faiss_settings(self._width, 1):
                for number in some:  # one at a time: together, FAISS settles equal codes in an order of the batch
                    one = padded[number : number + 1]
                    entries[number] = self._lists.search(one, effort.listed, params=asked)[1][0]

        n_threads = min(threads_set() or faiss.omp_get_max_threads(), len(queries) // 4)
        if n_threads < 2:
            work(range(len(queries)))
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(work, [range(first, len(queries), n_threads) for first in range(n_threads)]))
        return entries

    def efforts(self) -> Iterator[list[Effort]]:
        """For 1, 2, 3, 4, 6, 8, ... lists, each number of candidates."""
        breadth = 1
        while breadth < self._lists.nlist:
            yield [Effort(breadth, listed) for listed in LISTED]
            breadth = breadth * 3 // 2 if breadth & (breadth - 1) == 0 and breadth > 1 else _power_above(breadth)
        yield [Effort(self._lists.nlist, listed) for listed in LISTED]

    def cost(self, effort: Effort) -> float:
        """Rows passed over."""
        return effort.breadth * self._lists.ntotal / self._lists.nlist + MEASURED_COST * effort.listed


def _padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, -rows.shape[1] % PART_WIDTH))))


def _power_above(number: int) -> int:
    return 1 << number.bit_length()
