"""Search against FAISS, hnswlib and usearch, side by side in one run: time, recall, memory; filters; restarts.

hnswlib and usearch are measured where they are installed: `pip install hnswlib usearch`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.search_peers import Search, SearchWith, hnswlib, installed, plain_faiss, usearch
from benchmarks.search_text import search_text
from benchmarks.setting import setting
from index import (
    Metric,
    Neighbours,
    StructureName,
    choose_structure,
    open_arrays,
    set_scratch_folder,
    set_threads,
    write_arrays,
)
from index.auto import AutoIndex, Plan

K = 10
RECALL = 0.99
TIE = 1e-6  # relative; nearer than this two distances count as equal
QUERIES = 256
BATCHES = (1, 16, 64)
BARS = {1: 3.0, 16: 4.0, 64: 8.0}  # times as fast as `IndexFlatL2`
SHARES = (0.001, 0.01, 0.1, 0.5)
SPREADS = (0.1, 0.01)  # of clusters: a tenth and a hundredth of the distance between two
BREADTHS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
PARTS = ("exact", "approximate", "filtered", "restart")
STRUCTURES: tuple[StructureName, ...] = ("scan", "ivf", "hnsw")
PEERS: dict[str, Callable[..., tuple[SearchWith, float]]] = {"hnswlib": hnswlib, "usearch": usearch}
SYSTEMS = (*STRUCTURES, *PEERS)
DRAWN_ROWS = 65_536  # at a time
ALONE_REPETITIONS = 50  # at least: single queries take less than the clock of a busy machine can tell
FILTERED_REPETITIONS = 15

Tell = Callable[[str, dict[str, Any]], None]


def run(
    out: Path,
    rows: int = 100_000,
    *,
    exact_rows: int = 100_000,
    width: int = 512,
    parts: Sequence[str] = PARTS,
    repetitions: int = 9,
    threads: int = 2,
    seed: int = 0,
    vectors: Path | None = None,
    strange: Sequence[Path] = (),
    systems: Sequence[str] = SYSTEMS,
    resume: bool = False,
) -> tuple[Path, Path]:
    """Paths of `search_speed.json` and `search_speed.md`, which are written anew after each row of the report.

    `exact_rows` are searched exactly, `rows` by structures, through filters and after a restart. `vectors`, a .npy
    file, takes the place of drawn rows in the latter; its last 256 are the queries, at most `rows` of it are stored.
    The last 256 of each file of `strange` are asked for too, with our structures: what is unlike anything stored is
    what this service is for. `systems` are those that the part `approximate` compares. With `resume`, what the report
    in `out` already holds of that part, measured on the same rows, is kept and not measured again.

    Memory: at a million rows of width 512, about 9 GB: the rows twice, our structures and one peer at a time.
    """
    set_threads(threads)
    torch.set_num_threads(threads)
    found: dict[str, Any] = {
        "rows": rows,
        "exact_rows": exact_rows,
        "width": width,
        "threads": threads,
        "repetitions": repetitions,
        "seed": seed,
        "k": K,
        "vectors": None if vectors is None else str(vectors),
        "peers": {name: installed(name) for name in ("faiss-cpu", "hnswlib", "usearch")},
        "setting": setting(),
    }
    found["data"] = "drawn" if vectors is None else vectors.stem

    def tell(part: str, row: dict[str, Any]) -> None:
        found.setdefault(part, []).append(row)
        print(f"{part}: {json.dumps(row)}", flush=True)
        _write(found, out)

    if "exact" in parts:
        for name, spread in (("gaussian", None), *((f"clusters {spread:g}", spread) for spread in SPREADS)):
            _exact(tell, name, *_drawn(exact_rows, width, seed, spread), repetitions, threads)
    if set(parts) - {"exact"}:
        stored, queries = _embeddings(rows, width, seed) if vectors is None else _given(vectors, rows)
        found["rows"], found["width"] = stored.shape
        if resume and (known := _known(out, found)):
            found["approximate"] = known
            systems = [one for one in systems if one not in {row["system"] for row in known}]
        index = AutoIndex(width=stored.shape[1], metric=Metric.L2)
        index.add(np.arange(len(stored)), stored)
        truth = index.search(queries, K, exact=True)
        peers = [one for one in PEERS if one in systems and installed(one)] if "approximate" in parts else []
        for structure in STRUCTURES if {"approximate", "filtered"} & set(parts) else ():
            is_beside = structure == STRUCTURES[-1] and bool(peers)
            if "filtered" not in parts and structure not in systems and not is_beside:
                continue
            facts = _put_in_use(index, structure, seed, threads)
            if "approximate" in parts and structure in systems:
                _ours(tell, index, structure, facts, queries, truth, repetitions)
                if facts["built"]:
                    for path in strange:
                        _strange(tell, index, structure, path)
            if "filtered" in parts and facts["built"]:
                _filtered(tell, index, stored, queries, repetitions, seed)
        for name in peers:
            _peer(tell, name, index, stored, queries, truth, repetitions, threads)
        if "restart" in parts:
            _put_in_use(index, choose_structure(*stored.shape), seed, threads)
            _restart(tell, index, queries, out, threads)
    return _write(found, out)


def _drawn(rows: int, width: int, seed: int, spread: float | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows and queries: Gaussian, or in clusters of a hundred, as pictures of one scene are."""
    random = np.random.default_rng(seed)
    n = rows + QUERIES
    drawn = random.standard_normal((n, width), dtype=np.float32)
    if spread is not None:
        centres = np.maximum(random.standard_normal((max(1, rows // 100), width), dtype=np.float32), 0)
        drawn *= np.float32(spread)
        drawn += centres[random.integers(0, len(centres), n)]
    return drawn[:rows], drawn[rows:]


def _embeddings(rows: int, width: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows and queries whose spectrum falls as one over the root and whose neighbourhoods touch, as embeddings have."""
    random = np.random.default_rng(seed)
    axes = random.standard_normal((width, width), dtype=np.float32)
    axes *= (np.arange(1, width + 1, dtype=np.float32) ** -0.5)[:, None]
    centres = random.standard_normal((max(1, rows // 100), width), dtype=np.float32)
    drawn = np.empty((rows + QUERIES, width), dtype=np.float32)
    for start in range(0, len(drawn), DRAWN_ROWS):
        some = drawn[start : start + DRAWN_ROWS]
        block = random.standard_normal(some.shape, dtype=np.float32)
        block += centres[random.integers(0, len(centres), len(some))]
        np.matmul(block, axes, out=some)
    return drawn[:rows], drawn[rows:]


def _given(path: Path, rows: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    stored = np.ascontiguousarray(vectors[:-QUERIES][:rows], dtype=np.float32)
    return stored, np.ascontiguousarray(vectors[-QUERIES:], dtype=np.float32)


def _exact(
    tell: Tell,
    name: str,
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    repetitions: int,
    threads: int,
) -> None:
    """Time of each batch, ours and that of FAISS as shipped and as it is fastest."""
    shipped, tuned = plain_faiss(stored, K, threads)
    flat, scan = (AutoIndex(width=stored.shape[1], metric=Metric.L2) for _ in range(2))
    for index in (flat, scan):
        index.add(np.arange(len(stored)), stored)
    coding = _put_in_use(scan, "scan", 0, threads)
    searches: dict[str, Search] = {
        "faiss": shipped,
        "faiss tuned": tuned,
        "flat": lambda asked: flat.search(asked, K),
        "scan": lambda asked: scan.search(asked, K),
    }
    judged = queries[:16]
    for size in BATCHES:
        asked = [queries[first : first + size] for first in range(0, QUERIES - size + 1, size)]
        times, processor = _interleaved(searches, asked, repetitions)
        tell(
            "exact",
            {
                "data": name,
                "batch": size,
                "ms": {one: 1e3 * float(np.median(taken)) for one, taken in times.items()},
                "processor_ms": {one: 1e3 * float(np.median(taken)) for one, taken in processor.items()},
                "times_faiss": {one: _ratio(times["faiss"], taken) for one, taken in times.items()},
                "times_faiss_processor": {one: _ratio(processor["faiss"], taken) for one, taken in processor.items()},
                "bar": BARS[size],
                "right": {
                    one: _right(search(judged[:size]), stored, judged[:size]) for one, search in searches.items()
                },
                "build_s": coding["build_s"],
                "bytes_per_vector": {one: _bytes_each(index) for one, index in (("flat", flat), ("scan", scan))},
            },
        )


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


def _put_in_use(index: AutoIndex, structure: StructureName, seed: int, threads: int) -> dict[str, Any]:
    """Seconds that the build took, and whether the structure reached its recall and is in use now."""
    began = perf_counter()
    built = index.build(Plan(structure, "to be measured"), seed=seed, threads=threads)
    seconds = perf_counter() - began
    index.adopt(built)
    return {"build_s": seconds, "built": built is not None}


def _ours(
    tell: Tell,
    index: AutoIndex,
    structure: StructureName,
    facts: dict[str, Any],
    queries: NDArray[np.float32],
    truth: Neighbours,
    repetitions: int,
) -> None:
    """Queries a second, one at a time and all at once; recall on queries, and as measured by the index itself."""
    if not facts["built"]:
        tell("approximate", {"system": structure, "build_s": facts["build_s"], "refused": True})
        return
    told = index.describe()
    tell(
        "approximate",
        {
            "system": structure,
            "recall": _recall(index.search(queries, K), truth),
            "recall_told": told["recall"],
            "build_s": facts["build_s"],
            "bytes_per_vector": _bytes_each(index),
            "structure_bytes_per_vector": told["bytes"]["structure"] / len(index),
            **_speed({structure: lambda asked: index.search(asked, K)}, queries, repetitions)[structure],
        },
    )


def _strange(tell: Tell, index: AutoIndex, structure: StructureName, path: Path) -> None:
    """Recall on queries of another kind, and how much larger the second distance is for what was missed."""
    queries = _given(path, 0)[1]
    found, truth = index.search(queries, K), index.search(queries, K, exact=True)
    ratio = found.distances[:, 1] / np.maximum(truth.distances[:, 1], np.finfo(np.float32).tiny)
    told = {"mean": float(ratio.mean()), "largest": float(ratio.max())}
    row = {"structure": structure, "queries": path.stem, "recall": _recall(found, truth), "second_distance": told}
    tell("strange", row)


def _peer(
    tell: Tell,
    name: str,
    index: AutoIndex,
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    truth: Neighbours,
    repetitions: int,
    threads: int,
) -> None:
    """The peer at the least breadth that reaches the recall, turn by turn with our index as it is in use now."""
    began = perf_counter()
    search_with, bytes_total = PEERS[name](stored, K, threads)
    build_s = perf_counter() - began
    for breadth in BREADTHS:  # tuned on the very queries that are timed, which ours are not
        recall = _recall(search_with(queries, breadth), truth)
        if recall >= RECALL:
            break
    searches: dict[str, Search] = {
        name: lambda asked: search_with(asked, breadth),
        "ours": lambda asked: index.search(asked, K),
    }
    speed = _speed(searches, queries, repetitions)
    tell(
        "approximate",
        {
            "system": name,
            "recall": recall,
            "build_s": build_s,
            "bytes_per_vector": bytes_total / len(stored),
            "breadth": breadth,
            **speed[name],
            "ours_beside_it": {"structure": index.structure, **speed["ours"]},
        },
    )


def _known(out: Path, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the part `approximate` that an earlier run left there, of the same vectors on as many threads."""
    path = out / "search_speed.json"
    if not path.exists():
        return []
    left: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if any(left.get(name) != wanted[name] for name in ("rows", "width", "threads", "seed", "data", "peers")):
        return []
    rows: list[dict[str, Any]] = left.get("approximate", [])
    return rows


def _speed(searches: dict[str, Search], queries: NDArray[np.float32], repetitions: int) -> dict[str, dict[str, float]]:
    for search in searches.values():  # ours may not have been asked since the peer began to build
        search(queries)
    one_by_one, alone = _interleaved(
        searches, [queries[n : n + 1] for n in range(QUERIES)], max(ALONE_REPETITIONS, repetitions)
    )
    at_once, _ = _interleaved(searches, [queries], repetitions)
    return {
        name: {
            "alone_per_s": 1 / float(np.median(one_by_one[name])),
            "alone_processor_ms": 1e3 * float(np.median(alone[name])),
            "batch_per_s": QUERIES / float(np.median(at_once[name])),
        }
        for name in searches
    }


def _filtered(
    tell: Tell,
    index: AutoIndex,
    stored: NDArray[np.float32],
    queries: NDArray[np.float32],
    repetitions: int,
    seed: int,
) -> None:
    """Recall, least number returned and time, for filters by chance and filters that follow the data."""
    random = np.random.default_rng(seed)
    direction = random.standard_normal(stored.shape[1], dtype=np.float32)
    orders = {"chance": random.permutation(len(stored)), "half-space": np.argsort(stored @ direction)}
    asked = queries[:64]
    for (how, order), share in ((one, share) for one in orders.items() for share in SHARES):
        allowed = np.sort(order[: max(1, round(share * len(stored)))])
        searches: dict[str, Search] = {
            "as it is": lambda part, allowed=allowed: index.search(part, K, allowed=allowed),  # type: ignore[misc]
            "exact": lambda part, allowed=allowed: index.search(part, K, allowed=allowed, exact=True),  # type: ignore[misc]
        }
        times, _ = _interleaved(searches, [asked[n : n + 1] for n in range(64)], max(FILTERED_REPETITIONS, repetitions))
        found = searches["as it is"](asked)
        tell(
            "filtered",
            {
                "filter": how,
                "share": share,
                "structure": index.structure,
                "recall": _recall(found, searches["exact"](asked)),
                "least_returned": int((found.ids >= 0).sum(axis=1).min()),
                "ms": 1e3 * float(np.median(times["as it is"])),
                "exact_ms": 1e3 * float(np.median(times["exact"])),
            },
        )


def _restart(tell: Tell, index: AutoIndex, queries: NDArray[np.float32], out: Path, threads: int) -> None:
    """Seconds to save, and in a fresh process to import, to restore and to answer for the first time."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "search_speed.index"
    began = perf_counter()
    arrays, facts = index.export_arrays()
    size = write_arrays(path, {**arrays, "queries": queries[:16]}, facts)
    save_s = perf_counter() - began
    before = index.search(queries[:16], K)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search_speed", str(path), str(out), str(threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout)
    path.unlink()
    same = told.pop("ids") == before.ids.tolist()
    tell("restart", {"structure": index.structure, "file_bytes": size, "save_s": save_s, "same_answers": same, **told})


def restart(path: Path, scratch: Path, threads: int) -> dict[str, Any]:
    """What a fresh process takes to answer from a file, and what memory it holds then."""
    from_start = process_time()
    set_threads(threads)
    set_scratch_folder(scratch)
    idle = _anonymous_bytes()
    began = perf_counter()
    with open_arrays(path) as file:
        index = AutoIndex(width=file.facts["width"], metric=file.facts["metric"])
        index.restore(file, file.facts)
        queries = file["queries"].read()
    restored = perf_counter()
    found = index.search(queries, K)
    answered = perf_counter()
    raw = 4 * index.width * len(index)
    return {
        "import_processor_s": from_start,
        "restore_s": restored - began,
        "first_search_s": answered - restored,
        "anonymous_of_raw": (_anonymous_bytes() - idle) / raw,
        "mapped_of_raw": index.mapped_bytes / raw,
        "ids": found.ids.tolist(),
    }


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def _recall(found: Neighbours, truth: Neighbours) -> float:
    return float((truth.ids[:, :, None] == found.ids[:, None, :]).any(axis=2).mean())


def _bytes_each(index: AutoIndex) -> float:
    return (index.memory_bytes + index.mapped_bytes) / len(index)


def _write(found: dict[str, Any], out: Path) -> tuple[Path, Path]:
    out.mkdir(parents=True, exist_ok=True)
    as_json, as_text = out / "search_speed.json", out / "search_speed.md"
    as_json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    as_text.write_text("\n".join(search_text(found)), encoding="utf-8")
    return as_json, as_text


def main(arguments: Iterable[str]) -> None:
    """The fresh process of `_restart`."""
    path, scratch, threads = arguments
    print(json.dumps(restart(Path(path), Path(scratch), int(threads))))


if __name__ == "__main__":
    main(sys.argv[1:])
