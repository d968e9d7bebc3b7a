"""How much a running job slows down the scoring of one image: p50 and p99 with it, over those without.

A real server with its worker process serves a collection; one client scores one image after the other, in turns without
and with jobs that compare every vector with every other. Both are measured in one run, turn by turn, so that whatever
else the machine does falls on both alike.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from app.cli.demo_images import texture_images
from benchmarks.errors import BenchmarkRefused

C = "/v1/collections/pressure"
BATCH = 100
START_S = 120.0
P99_BAR = 2.0


@dataclass(frozen=True, slots=True)
class PressurePlan:
    """What is measured."""

    images: int = 3000  # of the collection
    scores: int = 200  # of a turn
    turns: int = 5  # of each kind
    seed: int = 0


@contextmanager
def running_server(environment: dict[str, str], folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address and the process of `oddity serve` on this folder, as an operator would start it."""
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(folder)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if " at http://" in line:
                    break
            else:
                raise BenchmarkRefused("The server did not start; `oddity serve` says why.")
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for a reader
            yield line.partition(" at ")[2].partition("/ ")[0], process
        finally:
            process.terminate()
            process.wait(START_S)


def measure_pressure(
    plan: PressurePlan, environment: dict[str, str] | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Milliseconds of a score without and with a job beside it, and their ratios."""
    environment = {**(os.environ if environment is None else environment), "ODDITY_JOBS": "process"}
    with (
        TemporaryDirectory() as folder,
        running_server(environment, Path(folder)) as (url, _),
        httpx2.Client(base_url=url, timeout=600) as http,
    ):
        say("Filling the collection")
        query = _fill(http, plan)
        kept_busy = _Busy(url)
        kept_busy.once()  # the worker has started, and everything has been read once
        _scores(http, query, plan.scores)
        quiet: list[float] = []
        pressed: list[float] = []
        for turn in range(plan.turns):
            say(f"Scoring, turn {turn + 1} of {plan.turns}")
            quiet += _scores(http, query, plan.scores)
            with kept_busy:
                pressed += _scores(http, query, plan.scores)
        collection = http.get(C).raise_for_status().json()
    found = _found(plan, quiet, pressed, kept_busy.jobs)
    embedding = {"fingerprint": collection["fingerprint"]}
    return {**found, "weights": collection["weights"].partition(":")[0], "embedding": embedding}


class _Busy:
    """Keeps a job running, one after the other, for as long as the block lasts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._running = threading.Event()
        self.jobs = 0

    def once(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=600) as http:
            self._job(http)

    def __enter__(self) -> None:
        self._ended.clear()
        self._running.clear()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()
        self._running.wait(START_S)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()

    def _keep(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=600) as http:
            while not self._ended.is_set():
                self._job(http)

    def _job(self, http: httpx2.Client) -> None:
        body = {"levels": ["near", "similar"]}
        job = http.post(f"{C}/duplicates", json=body).raise_for_status().json()
        while job["state"] not in ("succeeded", "failed", "cancelled"):
            if job["state"] == "running":
                self._running.set()
                if self._ended.is_set():
                    http.post(f"/v1/jobs/{job['id']}/cancel")
            time.sleep(0.05)
            job = http.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        if job["state"] == "failed":
            raise BenchmarkRefused(f"A job failed: {job['problem']['detail']}")
        self.jobs += 1


def _fill(http: httpx2.Client, plan: PressurePlan) -> bytes:
    """Fill the collection; returns an image that is not in it."""
    http.put(C).raise_for_status()
    made = texture_images(plan.images + 1, 0, plan.seed)
    for start in range(0, plan.images, BATCH):
        some = made[start : min(start + BATCH, plan.images)]
        http.post(f"{C}/images", files=[("files", (one.name, one.data)) for one in some]).raise_for_status()
    return made[-1].data


def _scores(http: httpx2.Client, query: bytes, count: int) -> list[float]:
    """Milliseconds of so many scores, one after the other."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        http.post(f"{C}/anomaly", content=query, headers={"content-type": "image/png"}).raise_for_status()
        took.append((time.perf_counter() - began) * 1000)
    return took


def _found(plan: PressurePlan, quiet: list[float], pressed: list[float], jobs: int) -> dict[str, Any]:
    at = {name: _percentiles(values) for name, values in (("without", quiet), ("with", pressed))}
    ratio = {name: at["with"][name] / at["without"][name] for name in ("p50", "p99")}
    return {
        "benchmark": "job_pressure",
        "images": plan.images,
        "scores": len(quiet),
        "jobs": jobs,
        "milliseconds": at,
        "ratio": ratio,
        "p99_bar": P99_BAR,
        "is_within_bar": ratio["p99"] <= P99_BAR,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def pressure_text(found: dict[str, Any]) -> list[str]:
    """The report, as lines of Markdown."""
    lines = ["| one score, ms | p50 | p99 |", "|---|---|---|"]
    lines += [f"| {name} a job | {row['p50']:.1f} | {row['p99']:.1f} |" for name, row in found["milliseconds"].items()]
    lines.append(f"| ratio | {found['ratio']['p50']:.2f} | {found['ratio']['p99']:.2f} (bar {found['p99_bar']:g}) |")
    lines += ["", f"{found['images']} images, {found['scores']} scores of each kind, {found['jobs']} jobs."]
    return lines
