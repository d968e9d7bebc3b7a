"""Ten times the load that a server sustains: it must refuse what is too much, keep its word to the rest, and live.

A real server with a short line is first asked by as many clients as it can work for, then by ten times as many as it
has places. Each asks again as soon as it is answered, also when it is refused, so that the pressure never lets up.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from benchmarks.clients import memory_mib, posted, run_load
from benchmarks.job_pressure import running_server
from benchmarks.report import table
from benchmarks.speed import made_jpegs

C = "/v1/collections/overload"
TIMES = 10
MEMORY_BAR = 1.5  # most memory under the load, over the most before it
LATENESS_BAR_S = 2.0  # an answer may come so much after the deadline: the batch being computed is finished


@dataclass(frozen=True, slots=True)
class OverloadPlan:
    """What is measured."""

    seconds: float = 60.0
    slots: int = 4
    waiting: int = 12  # requests in line before 503
    deadline_s: float = 10.0
    side: int = 500  # of the JPEGs
    bank: int = 100
    seed: int = 0


def measure_overload(
    plan: OverloadPlan, environment: dict[str, str] | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Answers, refusals and memory at the load that fits and at ten times that, and whether every bar is kept."""
    limits = {
        "ODDITY_INFERENCE_SLOTS": str(plan.slots),
        "ODDITY_QUEUE_LIMIT_REQUESTS": str(plan.waiting),
        "ODDITY_DEADLINE_S": str(plan.deadline_s),
        "ODDITY_JOBS": "off",
        "ODDITY_LOG_LEVEL": "error",
    }
    environment = {**(os.environ if environment is None else environment), **limits}
    images = made_jpegs(8, (plan.side, plan.side), plan.seed)
    with (
        TemporaryDirectory() as folder,
        running_server(environment, Path(folder)) as (url, process),
        httpx2.Client(base_url=url, timeout=600) as http,
    ):
        say("Filling the collection")
        http.put(C).raise_for_status()
        bank = made_jpegs(plan.bank, (64, 64), plan.seed + 1)
        http.post(f"{C}/images", files=[("files", (f"{place}.jpg", one)) for place, one in enumerate(bank)])
        say("The load that fits")
        fits = run_load(url, process.pid, plan.slots, plan.seconds / 4, posted(f"{C}/anomaly", images))
        before = memory_mib(process.pid)
        say(f"{TIMES} times as much")
        clients = TIMES * (plan.slots + plan.waiting)
        over = run_load(url, process.pid, clients, plan.seconds, posted(f"{C}/anomaly", images))
        after = memory_mib(process.pid)
        is_alive = process.poll() is None and http.get("/healthz").is_success
        began = time.perf_counter()
        is_recovered = posted_once(http, images[0]) == 200
        recovery_s = time.perf_counter() - began
    slowest_s = max((took for took in over.milliseconds.get(200, [])), default=0.0) / 1000
    bars = {
        "the server lives, and answers at once afterwards": is_alive and is_recovered,
        "nothing but 200 and 503": over.summary()["other"] == 0,
        "some are refused, some are served": bool(over.milliseconds.get(503)) and bool(over.milliseconds.get(200)),
        f"no answer later than {LATENESS_BAR_S:g} s after the deadline": slowest_s <= plan.deadline_s + LATENESS_BAR_S,
        f"memory at most {MEMORY_BAR:g} times": after <= MEMORY_BAR * before,
    }
    return {
        "benchmark": "overload",
        "plan": asdict(plan),
        "clients": {"fits": plan.slots, "over": clients},
        "fits": fits.summary(),
        "over": over.summary(),
        "slowest_s": slowest_s,
        "memory_mib": {"before": before, "after": after},
        "recovery_s": recovery_s,
        "bars": bars,
        "is_within_bars": all(bars.values()),
    }


def posted_once(http: httpx2.Client, image: bytes) -> int:
    """Status of one score."""
    return http.post(f"{C}/anomaly", content=image, headers={"content-type": "image/jpeg"}).status_code


def overload_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    rows = [
        (
            f"{found['clients'][name]} clients",
            f"{found[name]['images_per_s']:.1f}",
            *(f"{found[name][key]:.0f}" for key in ("p50_ms", "p99_ms", "refused", "other")),
        )
        for name in ("fits", "over")
    ]
    memory = found["memory_mib"]
    return [
        *table(["load", "answers/s", "p50 ms", "p99 ms", "refused", "other"], rows),
        f"Slowest answer {found['slowest_s']:.1f} s; memory {memory['before']:.0f} MiB before, "
        f"{memory['after']:.0f} MiB at most under it.",
        "",
        *table(["bar", "kept"], [(name, "yes" if kept else "no") for name, kept in found["bars"].items()]),
    ]
