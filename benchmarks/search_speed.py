"""Search against FAISS, hnswlib and usearch, side by side in one run: time, recall, memory.

hnswlib and usearch are measured where they are installed: `pip install hnswlib usearch`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import table
from benchmarks.setting import setting
from index import Metric, Neighbours, StructureName, VectorIndex, set_threads
from index.auto import AutoIndex, Plan
from index.faiss_scan import SHIPPED_LIMIT

K = 10
RECALL = 0.99
TIE = 1e-6  # relative; nearer than this two distances count as equal
QUERIES = 256
BATCHES = (1, 16, 64)
BARS = {1: 3.0, 16: 4.0, 64: 8.0}  # times as fast as `IndexFlatL2`
SHARES = (0.001, 0.01, 0.1, 0.5)
LINKS = 16
BUILD_BREADTH = 120
BREADTHS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
PARTS = ("exact", "approximate", "filtered")

Search = Callable[[NDArray[np.float32]], Neighbours]


def run(
    out: Path,
    rows: int = 100_000,
    *,
    width: int = 512,
    parts: Sequence[str] = PARTS,
    repetitions: int = 9,
    threads: int = 2,
    seed: int = 0,
    vectors: NDArray[np.float32] | None = None,
) -> tuple[Path, Path]:
    """Paths of `search_speed.json` and `search_speed.md`.

    `vectors`, where given, are searched in place of drawn clusters; the last 256 of them are the queries.
    """
    set_threads(threads)
    torch.set_num_threads(threads)
    found: dict[str, Any] = {
        "rows": rows,
        "width": width,
        "threads": threads,
        "repetitions": repetitions,
        "seed": seed,
        "peers": {name: _version(name) for name in ("faiss-cpu", "hnswlib", "usearch")},
    }
    data = dict(_data(rows, width, seed, vectors, parts))
    if "exact" in parts:
        found["exact"] = [
            _exact(name, *pair, repetitions, threads) for name, pair in data.items() if name != "spectrum"
        ]
    name = "given" if vectors is not None else "spectrum"
    if "approximate" in parts or "filtered" in parts:
        stored, queries = data[name]
        indexes = _built(stored, seed, threads)
        if "approximate" in parts:
            found["approximate"] = {
                "data": name,
                "systems": _approximate(indexes, stored, queries, repetitions, threads),
            }
        if "filtered" in parts:
            found["filtered"] = {"data": name, "cases": _filtered(indexes, stored, queries, repetitions, seed)}
    return _write(found, out)


def _data(
    rows: int, width: int, seed: int, vectors: NDArray[np.float32] | None, parts: Sequence[str]
) -> Iterator[tuple[str, tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Names of data sets, each with its rows and queries."""
    random = np.random.default_rng(seed)
    n = rows + QUERIES
    if "exact" in parts:
        yield "gaussian", _split(random.standard_normal((n, width), dtype=np.float32))
        centres = np.maximum(random.standard_normal((max(1, rows // 100), width), dtype=np.float32), 0)
        for spread in (0.1, 0.01):  # a hundred pictures of each scene: a tenth, a hundredth of the distance between two
            tight = centres[random.integers(0, len(centres), n)]
            yield (
                f"clusters {spread:g}",
                _split(tight + np.float32(spread) * random.standard_normal(tight.shape, np.float32)),
            )
    if vectors is not None:
        yield "given", _split(vectors)
    elif set(parts) != {"exact"}:
        # A spectrum that falls as one over the root, and centres whose neighbourhoods touch: as embeddings have.
        axes = random.standard_normal((width, width), dtype=np.float32)
        axes *= (np.arange(1, width + 1, dtype=np.float32) ** -0.5)[:, None]
        centres = random.standard_normal((max(1, rows // 100), width), dtype=np.float32)
        drawn = centres[random.integers(0, len(centres), n)]
        drawn += random.standard_normal(drawn.shape, dtype=np.float32)
        yield "spectrum", _split(drawn @ axes)


def _split(drawn: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.ascontiguousarray(drawn[:-QUERIES]), np.ascontiguousarray(drawn[-QUERIES:])


def _exact(
    name: str,
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    repetitions: int,
    threads: int,
) -> dict[str, Any]:
    """Time of each batch, ours and that of FAISS as shipped and as it is fastest."""
    plain = faiss.IndexFlatL2(stored.shape[1])
    plain.add(stored)

    def shipped(asked: NDArray[np.float32], limit: int = SHIPPED_LIMIT) -> Neighbours:
        faiss.omp_set_num_threads(threads)
        faiss.cvar.distance_compute_blas_threshold = limit
        distances, ids = plain.search(asked, K)
        return Neighbours(ids, np.sqrt(np.maximum(distances, 0)))

    def tuned(asked: NDArray[np.float32]) -> Neighbours:
        return shipped(asked, 4 * stored.shape[1])

    (flat, _), (scan, coding_s) = (_filled(kind, stored, 0, threads) for kind in ("flat", "scan"))
    searches: dict[str, Search] = {
        "faiss": shipped,
        "faiss tuned": tuned,
        "flat": lambda asked: flat.search(asked, K),
        "scan": lambda asked: scan.search(asked, K),
    }
    judged = queries[:16]
    batches = []
    for size in BATCHES:
        asked = [queries[first : first + size] for first in range(0, QUERIES - size + 1, size)]
        times, processor = _interleaved(searches, asked, repetitions)
        batches.append(
            {
                "batch": size,
                "ms": {one: 1e3 * float(np.median(taken)) for one, taken in times.items()},
                "processor_ms": {one: 1e3 * float(np.median(taken)) for one, taken in processor.items()},
                "times_faiss": {one: _ratio(times["faiss"], taken) for one, taken in times.items()},
                "times_faiss_processor": {one: _ratio(processor["faiss"], taken) for one, taken in processor.items()},
                "bar": BARS[size],
                "right": {one: _right(searches[one](judged[:size]), stored, judged[:size]) for one in searches},
            }
        )
    bytes_each = {kind: _bytes(index) / len(stored) for kind, index in (("flat", flat), ("scan", scan))}
    return {"data": name, "batches": batches, "coding_s": coding_s, "bytes_per_vector": bytes_each}


def _interleaved(
    searches: dict[str, Search], asked: Sequence[NDArray[np.float32]], repetitions: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds on the wall and of processor, one search after the other on the same batch, batch after batch."""
    wall: dict[str, list[float]] = {name: [] for name in searches}
    processor: dict[str, list[float]] = {name: [] for name in searches}
    for repetition in range(repetitions + 1):
        part = asked[repetition % len(asked)]
        for name, search in searches.items():
            began, used = perf_counter(), process_time()
            search(part)
            if repetition:  # the first warms up
                wall[name].append(perf_counter() - began)
                processor[name].append(process_time() - used)
    return wall, processor


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return float(np.median(np.array(theirs) / np.array(ours)))


def _right(found: Neighbours, stored: NDArray[np.float32], asked: NDArray[np.float32]) -> float:
    """Share of queries whose ids are the true nearest, judged in float64 from the differences."""
    right = []
    for query, ids in zip(asked.astype(np.float64), found.ids, strict=True):
        far = np.concatenate(
            [np.add.reduce((stored[n : n + 4096] - query) ** 2, axis=1) for n in range(0, len(stored), 4096)]
        )
        true = np.sqrt(np.sort(np.partition(far, K - 1)[:K]))
        right.append(len(set(ids.tolist())) == K and bool((np.abs(np.sqrt(far[ids]) - true) <= TIE * true).all()))
    return float(np.mean(right))


def _built(stored: NDArray[np.float32], seed: int, threads: int) -> dict[str, tuple[VectorIndex, float]]:
    """Our indexes over the rows, each with the seconds it took to build."""
    indexes: dict[str, tuple[VectorIndex, float]] = {}
    for kind in ("scan", "hnsw", "ivf"):
        indexes[kind] = _filled(kind, stored, seed, threads)
    return indexes


def _filled(kind: StructureName, stored: NDArray[np.float32], seed: int, threads: int) -> tuple[AutoIndex, float]:
    """Our index in one of its states, and the seconds that the structure took to build."""
    index = AutoIndex(width=stored.shape[1], metric=Metric.L2)
    index.add(np.arange(len(stored)), stored)
    began = perf_counter()
    index.adopt(index.build(Plan(kind, "to be measured"), seed=seed, threads=threads))
    return index, perf_counter() - began


def _approximate(
    indexes: dict[str, tuple[VectorIndex, float]],
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    repetitions: int,
    threads: int,
) -> list[dict[str, Any]]:
    """Queries a second, one at a time and all at once; recall, memory and build time."""
    truth = indexes["scan"][0].search(queries, K)
    searches: dict[str, Search] = {}
    facts: dict[str, dict[str, Any]] = {}
    for kind, (index, seconds) in indexes.items():
        searches[kind] = lambda asked, index=index: index.search(asked, K)
        facts[kind] = {"build_s": seconds, "bytes_per_vector": _bytes(index) / len(stored)}
        facts[kind]["effort"] = index.structure
    for name, make in (("hnswlib", _hnswlib), ("usearch", _usearch)):
        if _version(name) is None:
            continue
        began = perf_counter()
        search_with, bytes_total = make(stored, threads)
        facts[name] = {"build_s": perf_counter() - began, "bytes_per_vector": bytes_total / len(stored)}
        for breadth in BREADTHS:  # tuned on the very queries that are timed, which ours are not
            searches[name] = lambda asked, breadth=breadth, search=search_with: search(asked, breadth)
            if _recall(searches[name](queries), truth) >= RECALL:
                break
        facts[name]["effort"] = f"ef {breadth}"
    one_by_one, alone = _interleaved(searches, [queries[n : n + 1] for n in range(QUERIES)], max(50, repetitions))
    at_once, _ = _interleaved(searches, [queries], repetitions)
    return [
        {
            "system": name,
            "recall": _recall(search(queries), truth),
            "alone_per_s": 1 / float(np.median(one_by_one[name])),
            "alone_processor_ms": 1e3 * float(np.median(alone[name])),
            "batch_per_s": QUERIES / float(np.median(at_once[name])),
            **facts[name],
        }
        for name, search in searches.items()
    ]


def _filtered(
    indexes: dict[str, tuple[VectorIndex, float]],
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    repetitions: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Recall, least number returned and time, for filters by chance and filters that follow the data."""
    random = np.random.default_rng(seed)
    direction = random.standard_normal(stored.shape[1], dtype=np.float32)
    orders = {"chance": random.permutation(len(stored)), "half-space": np.argsort(stored @ direction)}
    cases = []
    for (how, order), share in ((one, share) for one in orders.items() for share in SHARES):
        allowed = np.sort(order[: max(1, round(share * len(stored)))])
        asked = queries[:64]
        searches: dict[str, Search] = {
            kind: lambda part, index=index: index.search(part, K, allowed=allowed)  # noqa: B023 - used in this round
            for kind, (index, _) in indexes.items()
        }
        truth = searches["scan"](asked)
        times, _ = _interleaved(searches, [asked[n : n + 1] for n in range(64)], max(15, repetitions))
        for kind, search in searches.items():
            found = search(asked)
            cases.append(
                {
                    "filter": how,
                    "share": share,
                    "index": kind,
                    "recall": _recall(found, truth),
                    "least_returned": int((found.ids >= 0).sum(axis=1).min()),
                    "ms": 1e3 * float(np.median(times[kind])),
                }
            )
    return cases


def _recall(found: Neighbours, truth: Neighbours) -> float:
    return float((truth.ids[:, :, None] == found.ids[:, None, :]).any(axis=2).mean())


def _hnswlib(
    stored: NDArray[np.float32], threads: int
) -> tuple[Callable[[NDArray[np.float32], int], Neighbours], float]:
    graph = import_module("hnswlib").Index("l2", stored.shape[1])
    graph.init_index(len(stored), ef_construction=BUILD_BREADTH, M=LINKS)
    graph.set_num_threads(threads)
    graph.add_items(stored)

    def search(asked: NDArray[np.float32], breadth: int) -> Neighbours:
        graph.set_ef(breadth)
        ids, squares = graph.knn_query(asked, K)
        return Neighbours(ids.astype(np.int64), np.sqrt(squares))

    return search, float(graph.index_file_size())


def _usearch(
    stored: NDArray[np.float32], threads: int
) -> tuple[Callable[[NDArray[np.float32], int], Neighbours], float]:
    graph = import_module("usearch.index").Index(
        ndim=stored.shape[1], metric="l2sq", dtype="f32", connectivity=LINKS, expansion_add=BUILD_BREADTH
    )
    graph.add(np.arange(len(stored)), stored, threads=threads)

    def search(asked: NDArray[np.float32], breadth: int) -> Neighbours:
        graph.expansion_search = breadth
        matches = graph.search(asked, K, threads=threads)
        shape = (len(asked), K)
        return Neighbours(
            np.asarray(matches.keys).astype(np.int64).reshape(shape), np.sqrt(matches.distances).reshape(shape)
        )

    return search, float(graph.memory_usage)


def _bytes(index: VectorIndex) -> float:
    return float(index.memory_bytes)  # type: ignore[attr-defined]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _write(found: dict[str, Any], out: Path) -> tuple[Path, Path]:
    where = setting()
    out.mkdir(parents=True, exist_ok=True)
    as_json, as_text = out / "search_speed.json", out / "search_speed.md"
    as_json.write_text(json.dumps({**found, "setting": where}, indent=2) + "\n", encoding="utf-8")
    peers = ", ".join(f"{name} {number or 'not installed'}" for name, number in found["peers"].items())
    head = [
        "# Search speed",
        "",
        f"`{where['command']}`",
        "",
        f"Commit {where['commit']}, {where['date']}; {where['machine']['processor']}, "
        f"{where['machine']['cores']} cores, {found['threads']} threads; {peers}. {found['rows']} rows of width "
        f"{found['width']}, k = {K}, seed {found['seed']}, medians of {found['repetitions']} interleaved repetitions.",
        "",
    ]
    as_text.write_text("\n".join([*head, *search_text(found)]), encoding="utf-8")
    return as_json, as_text


def search_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    lines: list[str] = []
    if "exact" in found:
        lines += [
            "## Exact",
            "",
            "Milliseconds a batch; times as fast as `IndexFlatL2` as shipped, which multiplies matrices from 128,000 "
            "numbers on (250 queries at width 512). Tuned: the same from four queries on. Processor: the same ratio "
            "in processor time of all threads, which other programs on the machine disturb less. Right: share of "
            "queries whose ids are the nearest by float64 differences, ties within 1e-6.",
            "",
        ]
        names = ("faiss", "faiss tuned", "flat", "scan")
        head = [
            "data",
            "batch",
            *names,
            "scan times faster",
            "bar",
            "processor",
            "times tuned",
            "scan right",
            "FAISS right",
        ]
        rows = [
            [
                one["data"],
                str(batch["batch"]),
                *(f"{batch['ms'][name]:.2f}" for name in names),
                f"{batch['times_faiss']['scan']:.1f}",
                f"{batch['bar']:.0f}",
                f"{batch['times_faiss_processor']['scan']:.1f}",
                f"{batch['times_faiss']['scan'] / batch['times_faiss']['faiss tuned']:.1f}",
                f"{batch['right']['scan']:.3f}",
                f"{batch['right']['faiss']:.3f}",
            ]
            for one in found["exact"]
            for batch in one["batches"]
        ]
        lines += table(head, rows)
        first = found["exact"][0]
        memory = first["bytes_per_vector"]
        lines += [
            f"Bytes a vector: flat {memory['flat']:.0f}, scan {memory['scan']:.0f}; coding all rows took "
            f"{first['coding_s']:.1f} s.",
            "",
        ]
    if "approximate" in found:
        lines += [f"## Approximate, {found['approximate']['data']}", ""]
        rows = [
            [
                one["system"],
                f"{one['recall']:.4f}",
                f"{one['alone_per_s']:.0f}",
                f"{one['alone_processor_ms']:.2f}",
                f"{one['batch_per_s']:.0f}",
                f"{one['bytes_per_vector']:.0f}",
                f"{one['build_s']:.1f}",
                one.get("effort", ""),
            ]
            for one in found["approximate"]["systems"]
        ]
        head = [
            "system",
            f"recall@{K}",
            "queries/s alone",
            "queries/s in one batch",
            "bytes/vector",
            "build s",
            "effort",
        ]
        lines += table(head, rows)
    if "filtered" in found:
        lines += [f"## Filtered, {found['filtered']['data']}", "", "One query at a time.", ""]
        rows = [
            [
                one["filter"],
                f"{100 * one['share']:g} %",
                one["index"],
                f"{one['recall']:.4f}",
                str(one["least_returned"]),
                f"{one['ms']:.2f}",
            ]
            for one in found["filtered"]["cases"]
        ]
        lines += table(["filter", "allowed", "index", f"recall@{K}", "least returned", "ms"], rows)
    return lines
