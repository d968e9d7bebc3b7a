"""Hostile input by kind on a real server: what it answers, what it costs in memory, and what a stranger learns.

Besides: how long the server takes to start and to end, and whether it still serves when all of it is over.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from benchmarks.errors import BenchmarkRefused
from benchmarks.hostile_inputs import BODY_LIMIT, CONNECTIONS_LIMIT, JPEG, WAIT_S, C, Kind, asked, kinds, picture
from benchmarks.job_pressure import running_server
from benchmarks.report import table
from benchmarks.speed import made_jpegs

KEY = "hostile-" + 32 * "k"  # of a server of this measurement's own
LOOK_EVERY_S = 0.01
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HostilePlan:
    """What is measured."""

    times: int = 60  # each kind, where none says otherwise
    clients: int = 4
    decode_memory_bytes: int = 192 * 2**20
    image_size: int = 64
    bank: int = 20


def measure_hostile(
    plan: HostilePlan, environment: dict[str, str] | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Outcomes and memory by kind, what a stranger gets, start and end."""
    base = {
        **(os.environ if environment is None else environment),
        "ODDITY_WEIGHTS": "stand-in",
        "ODDITY_IMAGE_SIZE": str(plan.image_size),
        "ODDITY_LOG_LEVEL": "error",
        "ODDITY_JOBS": "thread",  # so that what imports take shows in the server
        "ODDITY_DECODING": "processes",
        "ODDITY_DECODE_LIMIT_MEMORY_BYTES": str(plan.decode_memory_bytes),
        "ODDITY_BODY_LIMIT_BYTES": str(BODY_LIMIT),
        "ODDITY_CONNECTIONS_LIMIT": str(CONNECTIONS_LIMIT),
        "ODDITY_HEAD_WAIT_S": str(WAIT_S),
        "ODDITY_BODY_WAIT_S": str(WAIT_S),
    }
    found: dict[str, Any] = {"benchmark": "hostile", "plan": asdict(plan), "kinds": []}
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        with running_server(base, Path(folder)) as (url, process):
            _ready(url)
            found["start_s"] = time.perf_counter() - began
            _fill(url, plan)
            for kind in kinds():
                say(kind.name)
                found["kinds"].append(_tried(url, process.pid, kind, plan))
            found["serves_afterwards"] = asked(url, "POST", f"{C}/anomaly", picture(), JPEG)
            began = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            found["end_s"], found["end_code"] = time.perf_counter() - began, process.returncode
        say("Starting again on what is stored")
        began = time.perf_counter()
        keys = {**base, "ODDITY_ACCESS": "keys", "ODDITY_ADMIN_KEY": KEY}
        with running_server(keys, Path(folder)) as (url, _):
            _ready(url)
            found["restart_s"] = time.perf_counter() - began
            say("A stranger without a key")
            found["stranger"] = _stranger(url)
    found["server_errors"] = sum(one["server_errors"] for one in found["kinds"])
    found["is_within_bars"] = found["server_errors"] == 0 and found["serves_afterwards"] == 200
    return found


def _ready(url: str) -> None:
    until = time.monotonic() + 120
    while asked(url, "GET", "/readyz") != 200:
        if time.monotonic() > until:
            raise BenchmarkRefused("The server does not become ready; /readyz says why.")
        time.sleep(0.02)


def _fill(url: str, plan: HostilePlan) -> None:
    with httpx2.Client(base_url=url, timeout=600) as http:
        http.put(C).raise_for_status()
        bank = made_jpegs(plan.bank, (64, 64), 1)
        http.post(f"{C}/images", files=[("files", (f"{n}.jpg", one)) for n, one in enumerate(bank)]).raise_for_status()
        for _ in range(2 * plan.clients):
            http.post(f"{C}/anomaly", content=picture(), headers=JPEG).raise_for_status()


def _tried(url: str, server: int, kind: Kind, plan: HostilePlan) -> dict[str, Any]:
    times = kind.times or plan.times
    with _peaks(server) as peaks, ThreadPoolExecutor(plan.clients) as clients:
        outcomes = Counter(clients.map(lambda turn: kind.send(url, turn), range(times)))
    return {
        "kind": kind.name,
        "times": times,
        "outcomes": {str(outcome): count for outcome, count in sorted(outcomes.items(), key=lambda one: str(one[0]))},
        "server_errors": sum(
            count for one, count in outcomes.items() if isinstance(one, int) and one >= 500 and one != 503
        ),
        **peaks,
    }


@contextmanager
def _peaks(server: int) -> Iterator[dict[str, float]]:
    """By how much the server rose above what it had, and the most that a decoding process had, in MiB."""
    found = {"server_rise_mib": 0.0, "decoder_most_mib": 0.0}
    before, is_over = _resident_mib(server), threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_EVERY_S):
            found["server_rise_mib"] = max(found["server_rise_mib"], _resident_mib(server) - before)
            for one in children(server):
                found["decoder_most_mib"] = max(found["decoder_most_mib"], _resident_mib(one))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        is_over.set()
        looking.join()


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _resident_mib(process: int) -> float:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
    return 0.0


def _stranger(url: str) -> dict[str, Any]:
    """Every path of the interface without a key and with a wrong one, naming what is there and what is not."""
    statuses: Counter[int] = Counter()
    differing: list[str] = []
    with httpx2.Client(base_url=url, timeout=60) as http:
        document = http.get("/openapi.json").raise_for_status().json()
        for path, methods in document["paths"].items():
            for method in methods:
                told = set()
                for name in ("hostile", "nothing-there"):
                    for headers in ({}, {"Authorization": "Bearer oddity_wrong"}):
                        place = path.replace("{c}", name).replace("{p}", name)
                        answer = http.request(method, _filled(place), headers=headers)
                        statuses[answer.status_code] += 1
                        body = answer.text.replace(name, "") if answer.status_code == 401 else str(answer.status_code)
                        told.add((bool(headers), answer.status_code, body))
                if len(told) > 2:  # one body without a key, one with a wrong one
                    differing.append(f"{method} {path}")
        open_paths = sorted(path for path in document["paths"] if http.get(_filled(path)).status_code == 200)
    return {
        "requests": sum(statuses.values()),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "answered": open_paths,
        "told_apart": differing,
    }


def _filled(path: str) -> str:
    while "{" in path:
        start, _, rest = path.partition("{")
        path = f"{start}one{rest.partition('}')[2]}"
    return path


def hostile_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    rows = [
        (
            one["kind"],
            str(one["times"]),
            ", ".join(f"{outcome}: {count}" for outcome, count in one["outcomes"].items()),
            f"{one['server_rise_mib']:.0f}",
            f"{one['decoder_most_mib']:.0f}",
            str(one["server_errors"]),
        )
        for one in found["kinds"]
    ]
    stranger = found["stranger"]
    statuses = ", ".join(f"{status}: {count}" for status, count in stranger["statuses"].items())
    plan = found["plan"]
    return [
        f"{plan['clients']} clients at once; a process that decodes may allocate "
        f"{plan['decode_memory_bytes'] // 2**20} MiB; images are scored and added in turn.",
        "",
        *table(["kind", "times", "outcomes", "server's rise, MiB", "a decoder's most, MiB", "5xx but 503"], rows),
        f"Afterwards a good image is answered {found['serves_afterwards']}. First start {found['start_s']:.1f} s until "
        f"/readyz, again {found['restart_s']:.1f} s; SIGTERM to the end {found['end_s']:.1f} s, status "
        f"{found['end_code']}.",
        "",
        f"A stranger, without a key and with a wrong one, on every path, naming what is there and what is not: "
        f"{stranger['requests']} requests, {statuses}; answered: {', '.join(stranger['answered'])}; told apart: "
        f"{', '.join(stranger['told_apart']) or 'nothing'}.",
    ]
