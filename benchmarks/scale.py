"""What a large collection costs: building its structure, starting with it, searching it, deleting it.

The record is filled directly, with clustered vectors drawn from a seed and one small picture that all images share. All
else is the service as an operator runs it: the job as a worker runs it, and `oddity serve` as a process of its own,
whose memory the kernel counts.
"""

import hashlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, update

from app.access.caller import ANYBODY
from app.cli.demo_images import texture_images
from app.collections.service import delete_collection, put_collection
from app.core import Core
from app.db.tables import CollectionRow, ImageRow, RuntimeRow, VectorRow
from app.idempotency import Key
from app.indexing.service import submit_compact
from app.jobs.runner import Runner
from app.jobs.service import get_job
from app.main import HANDLERS, close_core, open_core
from app.settings import Settings
from app.snapshots.service import delete_snapshot, submit_restore, submit_snapshot
from benchmarks.errors import BenchmarkRefused
from benchmarks.job_pressure import running_server
from benchmarks.report import table

C = "/v1/collections/large"
NAME = "large"
COPY = "copy"
PAGE = 5_000
SELECTIVITIES = (0.001, 0.01, 0.1, 0.5)
START_S = 600.0
PARTS = ("snapshot", "record", "file", "delete")
"""Into one file and back; start from the record; start from the index file, and searches; deleting everything."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """What is measured."""

    rows: int = 100_000
    centres: int = 1000  # clusters of the vectors
    spread: float = 0.5  # of a vector around its centre, in lengths of a centre
    queries: int = 200
    metadata_values: int = 1000  # so that `place < n` allows a known share
    seed: int = 0
    parts: tuple[str, ...] = PARTS


def measure_scale(plan: ScalePlan, say: Say = lambda _: None) -> dict[str, Any]:
    """Seconds, bytes and milliseconds of one collection of `plan.rows` images."""
    found: dict[str, Any] = {"plan": asdict(plan)}
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        settings = Settings(data=data, weights="stand-in", image_size=32, jobs="off")
        found["idle"] = _idle(settings, say)
        core = open_core(settings)
        try:
            say("Filling the record")
            with _timed(found, "fill_s"):
                facts = fill(core, plan)
            found.update(facts)
            found["record_bytes"] = sum(path.stat().st_size for path in data.glob("oddity.db*"))
            if "snapshot" in plan.parts:
                found["snapshot"] = _snapshot(core, say)
            if set(plan.parts) == {"snapshot"}:
                return found
            say("Building the structure and the file")
            with _timed(found, "job_s"):
                found["job"] = _run_job(core, submit_compact(core, NAME, None)[0])
        finally:
            close_core(core)
        if "record" in plan.parts:
            say("Starting the service without its file")
            (data / "indexes").rename(data / "elsewhere")
            found["start_without_file"] = _start_only(settings, plan)
            (data / "elsewhere").rename(data / "indexes")
        if {"file", "delete"} & set(plan.parts):
            say("Starting the service from the file")
            found["start"] = _serve(settings, plan, say, deletes="delete" in plan.parts)
    return found


def clustered(rows: int, width: int, plan: ScalePlan) -> Iterator[NDArray[np.float32]]:
    """Pages of vectors around seeded centres. Shapes: (PAGE, width) each, the last one shorter."""
    random = np.random.default_rng(plan.seed)
    centres = random.normal(size=(plan.centres, width)).astype(np.float32)
    for start in range(0, rows, PAGE):
        count = min(PAGE, rows - start)
        page = centres[random.integers(0, plan.centres, count)]
        yield page + plan.spread * random.normal(size=page.shape).astype(np.float32)


@contextmanager
def _timed(found: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    found[name] = time.perf_counter() - start


def fill(core: Core, plan: ScalePlan, name: str = NAME) -> dict[str, Any]:
    """Put the images and their vectors into the record as one change; what the collection is."""
    picture = texture_images(1, 0, plan.seed)[0].data
    sha256 = hashlib.sha256(picture).hexdigest()
    core.store.put([(sha256, picture)])
    shown, _, _ = put_collection(core, name, {}, None)
    now = core.clock()
    with core.database.write() as session:
        row = session.query(CollectionRow).filter_by(name=name).one()
        runtime = RuntimeRow(digest="0" * 64, description={"engine": "drawn"})
        session.add(runtime)
        session.flush()
    first = 1
    for page in clustered(plan.rows, shown["width"], plan):
        numbers = range(first, first + len(page))
        vectors = [
            {"image_pk": n, "embedding_id": row.embedding_id, "runtime_id": runtime.id, "vector": one.tobytes()}
            for n, one in zip(numbers, page, strict=True)
        ]
        with core.database.write() as session:
            images = [_image(number, row.id, sha256, plan, now) | {"size_bytes": len(picture)} for number in numbers]
            session.execute(insert(ImageRow), images)
            session.execute(insert(VectorRow), vectors)
        first += len(page)
    with core.database.write() as session:
        session.execute(update(CollectionRow).where(CollectionRow.id == row.id).values(sequence=1))
    return {
        "width": shown["width"],
        "weights": shown["weights_label"].partition(":")[0],
        "embedding": {"fingerprint": shown["fingerprint"]},
    }


def _image(number: int, collection_id: int, sha256: str, plan: ScalePlan, now: datetime) -> dict[str, Any]:
    return {
        "id": number,
        "collection_id": collection_id,
        "image_id": f"part-{number:09d}",
        "sha256": sha256,
        "pixel_sha256": sha256,
        "role": "normal",
        "details": {"place": number * 7919 % plan.metadata_values, "filename": f"part-{number:09d}.png"},
        "format": "PNG",
        "width": 32,
        "height": 32,
        "sequence": 1,
        "created_at": now,
        "updated_at": now,
    }


def _snapshot(core: Core, say: Say) -> dict[str, Any]:
    """Out into one file, which is verified as a whole, in under another name, and that one deleted again."""
    found: dict[str, Any] = {}
    say("Writing a snapshot")
    with _timed(found, "write_s"):
        made = _run_job(core, submit_snapshot(core, NAME, True, None)[0])
    found["bytes"] = made["bytes"]
    say("Restoring it")
    with _timed(found, "restore_s"):
        submitted = submit_restore(core, ANYBODY, COPY, None, {"snapshot": made["snapshot"]}, Key("", None))
        found["restored"] = _run_job(core, submitted[0])["images"]
    delete_snapshot(core, NAME, made["snapshot"])
    say("Deleting the copy")
    with _timed(found, "delete_s"):
        delete_collection(core, COPY, None)
    return found


def _run_job(core: Core, job: dict[str, Any]) -> dict[str, Any]:
    Runner(core, HANDLERS).run_one()
    ended = get_job(core, job["id"])
    if ended["state"] != "succeeded":
        raise BenchmarkRefused(f"The job {ended['state']}: {ended['problem']}")
    return dict(ended["result"])


def _idle(settings: Settings, say: Say) -> dict[str, Any]:
    """A service without a collection, its network loaded: what every other figure is above."""
    say("Starting an empty service")
    start = time.perf_counter()
    with running_server(_environment(settings), settings.data) as (url, process), _client(url) as http:
        ready = time.perf_counter() - start
        http.put("/v1/collections/idle").raise_for_status()
        http.post("/v1/collections/idle/query", json={"vector": [1.0] * 512}).raise_for_status()
        http.delete("/v1/collections/idle").raise_for_status()
        return {"ready_s": ready, **memory_of(process)}


def _serve(settings: Settings, plan: ScalePlan, say: Say, *, deletes: bool) -> dict[str, Any]:
    start = time.perf_counter()
    with running_server(_environment(settings), settings.data) as (url, process), _client(url) as http:
        found: dict[str, Any] = {"ready_s": time.perf_counter() - start}
        queries = np.concatenate(list(clustered(plan.queries, 512, plan)))[: plan.queries]
        _ask(http, queries[0])
        found["first_query_s"] = time.perf_counter() - start
        http.post(f"{C}/anomaly", json={"ids": ["part-000000001"]}).raise_for_status()
        found["first_score_s"] = time.perf_counter() - start
        picture = texture_images(1, 0, plan.seed)[0].data
        http.post(f"{C}/anomaly", content=picture, headers={"Content-Type": "image/png"}).raise_for_status()
        found["first_image_s"] = time.perf_counter() - start
        http.put("/v1/collections/idle").raise_for_status()
        found["index"] = http.get(f"{C}/index").raise_for_status().json()
        say("Searching")
        found["query_ms"] = _spread(_milliseconds(http, queries))
        found["exact_query_ms"] = _spread(_milliseconds(http, queries[:20], exact=True))
        found["recall_at_10"] = _recall(http, queries[:100])
        found["filtered"] = {}
        for share in SELECTIVITIES:
            wanted = {"place": {"lt": round(share * plan.metadata_values)}}
            chosen = {"must": [{"key": name, "range": bounds} for name, bounds in wanted.items()]}
            first = _milliseconds(http, queries[:1], filter=chosen)[0]
            times = _spread(_milliseconds(http, queries[:50], filter=chosen))
            recall = _recall(http, queries[:50], filter=chosen)
            found["filtered"][str(share)] = {"first_ms": first, **times, "recall_at_10": recall}
        found["memory"] = memory_of(process)
        if deletes:
            say("Deleting everything")
            start = time.perf_counter()
            http.post(f"{C}/images/delete", json={"role": "normal"}).raise_for_status()
            found["delete_s"] = time.perf_counter() - start
            http.post(f"{C}/query", json={"vector": [1.0] * 512}).raise_for_status()
            time.sleep(2)
            found["memory_after_delete"] = memory_of(process)
        return found


def _start_only(settings: Settings, plan: ScalePlan) -> float:
    """Seconds until the first search was answered."""
    start = time.perf_counter()
    with running_server(_environment(settings), settings.data) as (url, _), _client(url) as http:
        _ask(http, np.concatenate(list(clustered(1, 512, plan)))[0])
        return time.perf_counter() - start


def memory_of(process: "subprocess.Popen[str]") -> dict[str, int]:
    """Bytes of a process: anonymous memory, and all that is resident, files mapped into it included."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"anonymous_bytes": fields["Anonymous"], "resident_bytes": fields["Rss"]}


def _environment(settings: Settings) -> dict[str, str]:
    chosen = {"ODDITY_WEIGHTS": "stand-in", "ODDITY_IMAGE_SIZE": "32", "ODDITY_JOBS": "off"}
    return {**os.environ, **chosen, "ODDITY_DATA": str(settings.data)}


def _client(url: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, timeout=START_S)


def _ask(http: httpx2.Client, vector: NDArray[np.float32], **more: Any) -> list[str]:
    answer = http.post(f"{C}/query", json={"vector": vector.tolist(), "k": 10, **more}).raise_for_status().json()
    return [one["id"] for one in answer["results"][0]]


def _milliseconds(http: httpx2.Client, queries: NDArray[np.float32], **more: Any) -> list[float]:
    times = []
    for one in queries:
        start = time.perf_counter()
        _ask(http, one, **more)
        times.append(1000 * (time.perf_counter() - start))
    return times


def _recall(http: httpx2.Client, queries: NDArray[np.float32], **more: Any) -> float:
    shares = []
    for one in queries:
        true = _ask(http, one, exact=True, **more)
        found = set(_ask(http, one, **more))
        shares.append(len(set(true) & found) / len(true) if true else float(not found))
    return statistics.fmean(shares)


def _spread(times: list[float]) -> dict[str, float]:
    return {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}


def scale_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    rows = [["filling the record", f"{found['fill_s']:.0f} s"], ["record on disk", _mebibytes(found["record_bytes"])]]
    if "snapshot" in found:
        rows += _snapshot_rows(found["snapshot"])
    if "job" in found:
        rows.append(["job: structure, calibration, file", f"{found['job_s']:.0f} s"])
        rows.append(["index file", _mebibytes(found["job"]["file"]["bytes"]) if found["job"]["file"] else "none"])
    if "start_without_file" in found:
        rows.append(["start without file: first search answered", f"{found['start_without_file']:.1f} s"])
    if "start" in found:
        rows += _start_rows(found["start"], found["idle"], 4 * found["width"] * found["plan"]["rows"])
    return [
        f"{found['plan']['rows']} images, width {found['width']}; clustered vectors, seed {found['plan']['seed']}.",
        "",
        *table(["what", "figure"], rows),
    ]


def _start_rows(start: dict[str, Any], idle: dict[str, int], raw_bytes: int) -> list[list[str]]:
    bank = start["index"]["parts"]["bank"]
    above = start["memory"]["anonymous_bytes"] - idle["anonymous_bytes"]
    rows = [
        ["structure", f"{bank['structure']}, recall measured when built {bank['recall']:.4f}"],
        ["start with file: first search answered", f"{start['first_query_s']:.1f} s"],
        ["start with file: first stored image scored", f"{start['first_score_s']:.1f} s"],
        ["start with file: first new image scored", f"{start['first_image_s']:.1f} s"],
        ["search over HTTP, k = 10, p50 / p99", _times(start["query_ms"])],
        ["the same, exact", _times(start["exact_query_ms"])],
        ["recall at 10 against exact", f"{start['recall_at_10']:.4f}"],
        *(
            [f"filter that allows {100 * float(share):g} %: first, p50 / p99, recall at 10", _filtered(one)]
            for share, one in start["filtered"].items()
        ),
        ["anonymous memory, empty service", _mebibytes(idle["anonymous_bytes"])],
        ["anonymous memory, with the collection", _mebibytes(start["memory"]["anonymous_bytes"])],
        ["above the empty service, of the raw vectors", f"{above / raw_bytes:.2f}"],
    ]
    if "delete_s" in start:
        rows.append(["deleting everything", f"{start['delete_s']:.1f} s"])
        rows.append(["anonymous memory after that", _mebibytes(start["memory_after_delete"]["anonymous_bytes"])])
    return rows


def _snapshot_rows(one: dict[str, Any]) -> list[list[str]]:
    return [
        ["writing a snapshot, verified", f"{one['write_s']:.0f} s, {_mebibytes(one['bytes'])}"],
        ["restoring it under another name", f"{one['restore_s']:.0f} s, {one['restored']} images"],
        ["deleting that collection", f"{one['delete_s']:.1f} s"],
    ]


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.0f} MiB"


def _times(one: dict[str, float]) -> str:
    return f"{one['p50']:.1f} / {one['p99']:.1f} ms"


def _filtered(one: dict[str, float]) -> str:
    return f"{one['first_ms']:.0f} ms, {_times(one)}, {one['recall_at_10']:.4f}"
