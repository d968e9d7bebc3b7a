"""What it costs to decode in processes instead of in threads of the server: two servers, loaded in turn in one run.

The turns alternate, so that whatever else the machine does falls on both; each ratio is the median of the turns'.
"""

import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from benchmarks.clients import cpu_seconds, family_of, memory_mib, posted, run_load
from benchmarks.errors import BenchmarkRefused
from benchmarks.job_pressure import running_server
from benchmarks.report import table
from benchmarks.speed import SIZES, made_jpegs

C = "/v1/collections/decoding"
WAYS = ("threads", "processes")
BAR_OF_THROUGHPUT = 0.9
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DecodingPlan:
    """What is measured."""

    sizes: tuple[str, ...] = ("medium", "large")
    clients: tuple[int, ...] = (1, 8)
    turns: int = 5
    seconds: float = 4.0  # of each turn
    images: int = 16  # different ones of each size
    bank: int = 50
    image_size: int = 224
    weights: str = "stand-in"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises BenchmarkRefused: a size is unknown."""
        if set(self.sizes) - set(SIZES):
            raise BenchmarkRefused(f"`sizes` must be of {', '.join(SIZES)}; got {', '.join(self.sizes)}.")


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    pid: int

    def processes(self) -> list[int]:
        """The server and those that decode for it."""
        return family_of(self.pid)

    def cpu_s(self) -> float:
        return sum(map(cpu_seconds, self.processes()))


def measure_decoding(
    plan: DecodingPlan, environment: dict[str, str] | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Throughput, answer times and processor time of both ways, by size and number of clients, with their ratios."""
    environment = {
        **(os.environ if environment is None else environment),
        "ODDITY_WEIGHTS": plan.weights,
        "ODDITY_IMAGE_SIZE": str(plan.image_size),
        "ODDITY_JOBS": "off",
        "ODDITY_LOG_LEVEL": "error",
    }
    say("Making images")
    pictures = {size: made_jpegs(plan.images, SIZES[size], plan.seed) for size in plan.sizes}
    found: dict[str, Any] = {"benchmark": "decoding", "plan": asdict(plan), "loads": []}
    with ExitStack() as stack:
        servers = {}
        for way in WAYS:
            say(f"Starting a server that decodes in {way}")
            folder = stack.enter_context(TemporaryDirectory())
            server = running_server({**environment, "ODDITY_DECODING": way}, Path(folder))
            url, process = stack.enter_context(server)
            servers[way] = _Server(url, process.pid)
            _fill(url, plan, [images[0] for images in pictures.values()])
        for size, images in pictures.items():
            for clients in plan.clients:
                say(f"{size}, {clients} clients")
                found["loads"].append({"size": size, "clients": clients, **_compared(plan, servers, images, clients)})
        found["memory_mib"] = {
            way: [round(memory_mib(pid)) for pid in server.processes()] for way, server in servers.items()
        }
    found["worst_throughput"] = min(one["throughput"] for one in found["loads"])
    found["is_within_bar"] = found["worst_throughput"] >= BAR_OF_THROUGHPUT
    return found


def _fill(url: str, plan: DecodingPlan, images: list[bytes]) -> None:
    with httpx2.Client(base_url=url, timeout=600) as http:
        http.put(C).raise_for_status()
        bank = made_jpegs(plan.bank, SIZES["small"], plan.seed + 1)
        files = [("files", (f"{place}.jpg", image)) for place, image in enumerate(bank)]
        http.post(f"{C}/images", files=files).raise_for_status()
        for image in 8 * images:
            http.post(f"{C}/anomaly", content=image, headers={"content-type": "image/jpeg"}).raise_for_status()


def _compared(plan: DecodingPlan, servers: dict[str, _Server], images: list[bytes], clients: int) -> dict[str, Any]:
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in servers}
    for turn in range(plan.turns):
        for way in list(servers) if turn % 2 else reversed(list(servers)):
            server = servers[way]
            before = server.cpu_s()
            load = run_load(server.url, server.pid, clients, plan.seconds, posted(f"{C}/anomaly", images)).summary()
            if load["other"] or not load["answers"]:
                raise BenchmarkRefused(f"The server that decodes in {way} did not answer as it should.")
            turns[way].append({**load, "cpu_ms": 1000 * (server.cpu_s() - before) / load["answers"]})
    ratios = {
        name: statistics.median(
            one[key] / other[key] for one, other in zip(turns["processes"], turns["threads"], strict=True)
        )
        for name, key in (("throughput", "images_per_s"), ("p50", "p50_ms"), ("cpu", "cpu_ms"))
    }
    middle = {
        way: {key: statistics.median(one[key] for one in some) for key in ("images_per_s", "p50_ms", "cpu_ms")}
        for way, some in turns.items()
    }
    return {**ratios, **middle}


def decoding_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    plan = found["plan"]
    rows = [
        (
            f"{one['size']}, {one['clients']}",
            *(f"{one[way][key]:.1f}" for key in ("images_per_s", "p50_ms", "cpu_ms") for way in WAYS),
            *(f"{one[name]:.3f}" for name in ("throughput", "p50", "cpu")),
        )
        for one in found["loads"]
    ]
    columns = [f"{what}, {way}" for what in ("images/s", "p50 ms", "CPU ms an image") for way in WAYS]
    memory = "; ".join(f"{way}: {', '.join(map(str, some))}" for way, some in found["memory_mib"].items())
    return [
        f"{plan['turns']} turns of {plan['seconds']:g} s each way, in turn; input {plan['image_size']} px. Ratios: "
        f"processes over threads, medians over the turns; throughput is to be at least {BAR_OF_THROUGHPUT:g}.",
        "",
        *table(["size, clients", *columns, "throughput", "p50", "CPU"], rows),
        f"Most memory, MiB, of the server and each process that decodes: {memory}.",
    ]
