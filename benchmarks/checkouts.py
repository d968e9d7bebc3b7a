"""What a change does to scoring and adding: servers of two source trees, loaded in turn in one run.

A machine that others share moves by more from hour to hour than most changes do. So the turns alternate, and each tree
has several servers: two of the same code may differ for as long as they live.
"""

import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from benchmarks.clients import posted, run_load
from benchmarks.errors import BenchmarkRefused
from benchmarks.job_pressure import running_server
from benchmarks.report import table
from benchmarks.speed import BATCH_SENT, SIZES, TURN_IMAGES, C, add_images, add_steadily, made_jpegs

TREES = ("other", "this")
KEYS = ("images_per_s", "p50_ms", "p99_ms", "cpu_ms")
WARM_S = 2.0
ROOT = Path(__file__).resolve().parent.parent
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CheckoutsPlan:
    """What is measured."""

    other: Path
    size: str
    clients: tuple[int, ...]
    servers: int  # of each tree
    turns: int
    seconds: float  # of each turn
    bank: int = 200
    images: int = 32  # different ones
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises BenchmarkRefused: there is no source tree, or the size is unknown."""
        if not (self.other / "app" / "cli" / "serve.py").is_file():
            raise BenchmarkRefused(f"`other` must be a folder with another checkout of Oddity; got {self.other}.")
        if self.size not in SIZES:
            raise BenchmarkRefused(f"`size` must be of {', '.join(SIZES)}; got {self.size}.")


@dataclass(frozen=True, slots=True)
class _Server:
    tree: str
    url: str
    pid: int


Once = Callable[[_Server, int], dict[str, float]]
"""One measurement of a server, in this turn."""


def measure_checkouts(
    plan: CheckoutsPlan, environment: dict[str, str] | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Medians of each server by number of clients, and what this tree answers over what the other one does.

    Adding comes last, for a bank that has grown takes longer to search.
    """
    usual = os.environ if environment is None else environment
    images = made_jpegs(plan.images, SIZES[plan.size], plan.seed)
    found: dict[str, Any] = {"benchmark": "checkouts", "plan": {**asdict(plan), "other": str(plan.other)}, "loads": []}
    with ExitStack() as stack:
        servers = []
        for number in range(plan.servers):
            for tree, root in zip(TREES, (plan.other.resolve(), ROOT), strict=True):
                say(f"Starting server {number + 1} of {plan.servers} of each tree")
                path = os.pathsep.join((str(root), str(root / "app" / "client")))
                # Without the folder that this runs in, which would come before the path.
                source = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
                setting = {**usual, **source, "ODDITY_JOBS": "off", "ODDITY_LOG_LEVEL": "error"}
                folder = Path(stack.enter_context(TemporaryDirectory()))
                url, process = stack.enter_context(running_server(setting, folder))
                servers.append(_Server(tree, url, process.pid))
                _fill(url, plan)
        for clients in plan.clients:
            for server in servers:
                run_load(server.url, server.pid, clients, WARM_S, posted(f"{C}/anomaly", images))
            say(f"{clients} clients")
            score = partial(_scored, plan, images, clients)
            found["loads"].append({"what": f"{clients} clients", **_compared(plan, servers, score)})
        say("Adding")
        found["loads"].append({"what": "adding", **_compared(plan, servers, partial(_added, plan, images))})
    return found


def _fill(url: str, plan: CheckoutsPlan) -> None:
    with httpx2.Client(base_url=url, timeout=600) as http:
        http.put(C).raise_for_status()
        add_images(http, made_jpegs(plan.bank, SIZES["small"], plan.seed + 1))


def _scored(plan: CheckoutsPlan, images: list[bytes], clients: int, server: _Server, _turn: int) -> dict[str, float]:
    load = run_load(server.url, server.pid, clients, plan.seconds, posted(f"{C}/anomaly", images))
    told = load.summary()
    if told["other"] or not told["answers"]:
        raise BenchmarkRefused(f"A server of the {server.tree} tree did not answer as it should.")
    return {**told, "cpu_ms": 1000 * load.server_cpu_s / told["answers"]}


def _added(plan: CheckoutsPlan, images: list[bytes], server: _Server, turn: int) -> dict[str, float]:
    return add_steadily(server.url, server.pid, images, plan.seconds, turn * TURN_IMAGES)


def _compared(plan: CheckoutsPlan, servers: list[_Server], once: Once) -> dict[str, Any]:
    turns: list[list[dict[str, float]]] = [[] for _ in servers]
    for turn in range(plan.turns):
        order = list(range(len(servers)))
        for place in order if turn % 2 else reversed(order):
            turns[place].append(once(servers[place], turn))
    medians: dict[str, dict[str, list[float]]] = {tree: {key: [] for key in KEYS} for tree in TREES}
    for server, some in zip(servers, turns, strict=True):
        for key in KEYS:
            medians[server.tree][key].append(statistics.median(one[key] for one in some))
    # Servers were started by turns, the other tree's first: each stands beside the one that was started with it.
    ratios = [
        statistics.median(
            one["images_per_s"] / other["images_per_s"]
            for one, other in zip(turns[place + 1], turns[place], strict=True)
        )
        for place in range(0, len(servers), 2)
    ]
    return {**medians, "throughput": ratios}


def checkouts_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    plan = found["plan"]
    rows = [
        (
            f"{load['what']}, {tree}",
            *(", ".join(f"{value:.1f}" for value in load[tree][key]) for key in KEYS),
            ", ".join(f"{value:.2f}" for value in load["throughput"]) if tree == "this" else "",
        )
        for load in found["loads"]
        for tree in TREES
    ]
    return [
        f"{plan['servers']} servers of each tree, {plan['turns']} turns of {plan['seconds']:g} s each; medians over "
        "the turns, server by server. Ratios: this tree over the other, pair by pair. Adding: requests of "
        f"{BATCH_SENT} images, one after the other; its p50 and p99 are of a request.",
        "",
        *table(["", "images/s", "p50 ms", "p99 ms", "CPU ms an image", "throughput"], rows),
    ]
