"""How fast images are scored and added, beside what decoder and network alone could do on the same cores.

Everything is measured in one run: the decoder alone (D images a second on all cores), the network alone at each
precision (N), torchvision's own network in float32 with one image at a time (the usual baseline), then a real server
under keep-alive clients. Decoder and network share the cores, so that no service can pass 1/(1/D + 1/N).

What the bars compare is measured once more, each for a moment in turn, again and again: a machine that others share
moves by more from one minute to the next than a bar leaves room for.
"""

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import numpy as np
import torch
from PIL import Image

from app.embedders import Embedders
from app.settings import Settings
from benchmarks.clients import family_of, memory_mib, posted, posted_anew, run_load
from benchmarks.errors import BenchmarkRefused
from benchmarks.job_pressure import running_server
from benchmarks.report import table
from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder, EmbeddingSpec, PreparedImage
from models.backbones.engine import BATCH_MAX, POOLED
from models.backbones.loader import default_weights, load_embedder
from models.backbones.made_images import made_images
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.torchvision_import import import_torchvision

C = "/v1/collections/speed"
C_ADDED = "/v1/collections/speed-added"  # one that grows
BATCH_SENT = 32  # images in one request that adds
SIZES = {"small": (64, 64), "medium": (500, 400), "large": (4000, 3000)}
# Different images of each size that are added, again and again: few enough copies each that searches hardly meet ties.
ADDED = {"small": 1024, "medium": 256, "large": 64}
PARTS = ("decoder", "network", "baseline", "service", "stages", "bars")
PRECISIONS = ("exact", "float32", "bf16", "int8")
MADE_SIDE = 512  # generated this large, then resized: noise of 12 megapixels takes long to draw
BASELINE_SIDE = 224  # of the network that most scripts use
BAR_OF_CEILING = 0.75
BAR_OF_IDLE = 1.3
BAR_OF_ADDING = 0.8
WARM_S, WARM_TURNS = 1.0, 15
TURN_S = 1.5  # of each thing that a bar compares, in each turn
TURN_IMAGES = 1_000_000  # numbers that a turn of adding has for its files
MANY, SEVERAL = 32, 4  # clients who send one image, and who send many
TURNS = 50  # of each part of a request
PAUSE_S = 0.005  # between two turns of what an idle service does: about as long as the rest of a request takes
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SpeedPlan:
    """What is measured."""

    backbones: tuple[str, ...] = ("resnet18", "resnet50")
    sizes: tuple[str, ...] = ("small", "medium", "large")
    parts: tuple[str, ...] = PARTS
    precisions: tuple[str, ...] = ("float32", "bf16", "int8")
    clients: tuple[int, ...] = (1, 8, 32)
    batch: int = 32
    """Images of a request, measured besides requests of one; 1: not measured."""
    images: int = 32  # different ones of each size
    bank: int = 200  # images of the collection
    seconds: float = 10.0  # of each measurement
    turns: int = 5  # of what the bars compare
    image_size: int | None = None  # the weights' own
    weights: str | None = None  # those that new collections get
    threads: int | None = None  # all cores
    processes: int = 1  # of the service
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises BenchmarkRefused: a part, size or precision is unknown."""
        for name, known in (("parts", PARTS), ("sizes", tuple(SIZES)), ("precisions", PRECISIONS)):
            unknown = set(getattr(self, name)) - set(known)
            if unknown:
                raise BenchmarkRefused(f"`{name}` must be of {', '.join(known)}; got {', '.join(sorted(unknown))}.")


def measure_speed(
    plan: SpeedPlan, environment: dict[str, str] | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Every part that the plan names, for each backbone, with the ratios between them."""
    cores = plan.threads or len(os.sched_getaffinity(0))
    say("Making images")
    pictures = {size: made_jpegs(plan.images, SIZES[size], plan.seed) for size in plan.sizes}
    found: dict[str, Any] = {"benchmark": "speed", "plan": asdict(plan), "threads": cores, "backbones": {}}
    for backbone in plan.backbones:
        weights = plan.weights or default_weights(backbone)
        spec = EmbeddingSpec(backbone=backbone, weights=weights, image_size=plan.image_size)
        found["backbones"][backbone] = _of_backbone(plan, spec, pictures, cores, environment, say)
    found["jpeg_bytes"] = {size: round(statistics.mean(map(len, some))) for size, some in pictures.items()}
    return found


def made_jpegs(count: int, size: tuple[int, int], seed: int) -> list[bytes]:
    """Seeded JPEGs of this width and height."""
    encoded = []
    for pixels in made_images(count, min(MADE_SIDE, max(size)), seed):
        out = io.BytesIO()
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=88)
        encoded.append(out.getvalue())
    return encoded


def _of_backbone(
    plan: SpeedPlan,
    spec: EmbeddingSpec,
    pictures: dict[str, list[bytes]],
    cores: int,
    environment: dict[str, str] | None,
    say: Say,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), threads=cores, jobs="off")
        embedders = Embedders(settings, cores)
        try:
            say(f"{spec.backbone}: loading")
            began = time.perf_counter()
            embedder = embedders.get(spec).embedder
            found["first_load_s"] = time.perf_counter() - began
            found["runtime"] = embedder.runtime.describe()
            found["weights"] = spec.weights.partition(":")[0]
            found["image_size"] = embedder.identity.preprocessing.image_size
            spec = replace(spec, image_size=found["image_size"])
            if "decoder" in plan.parts:
                found["decoder"] = {}
                for size, images in pictures.items():
                    say(f"{spec.backbone}: decoder alone, {size}")
                    found["decoder"][size] = _decoder(embedders, embedder, images, plan.seconds)
            if "network" in plan.parts:
                found["network"] = _networks(plan, spec, embedder, cores, Path(folder), say)
            if "baseline" in plan.parts:
                found["baseline"] = {}
                for size, images in pictures.items():
                    say(f"{spec.backbone}: torchvision, one at a time, {size}")
                    found["baseline"][size] = _baseline(spec.backbone, images, plan, cores)
            if "stages" in plan.parts:
                say(f"{spec.backbone}: stages of one request")
                for name, pause_s in (("stages", 0.0), ("stages_after_a_pause", PAUSE_S)):
                    found[name] = {
                        size: _stages(embedder, embedders, images, pause_s) for size, images in pictures.items()
                    }
            if "bars" in plan.parts:
                found["bars"] = {
                    size: _turns(plan, spec, images, embedder, embedders, environment, say, size)
                    for size, images in pictures.items()
                }
        finally:
            embedders.close()
    if "service" in plan.parts:
        found["service"] = {}
        for size, images in pictures.items():
            found["service"][size] = _service(plan, spec, images, environment, say, size)
    return {**found, "ratios": {size: _ratios(turns) for size, turns in found.get("bars", {}).items()}}


def _decoder(embedders: Embedders, embedder: Embedder, images: list[bytes], seconds: float) -> dict[str, float]:
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        embedders.prepare(embedder, images)
        done += len(images)
    rate = done / (time.perf_counter() - began)
    return {
        "images_per_s": rate,
        "p50_ms": _p50(lambda turn: embedder.prepare(images[turn % len(images)], embedders.limits)),
    }


def _networks(
    plan: SpeedPlan, spec: EmbeddingSpec, served: Embedder, cores: int, folder: Path, say: Say
) -> dict[str, Any]:
    """Images a second by engine and precision; one that this machine passes over shows as what took its place."""
    found = {"served": _network(served, plan)}
    for precision in plan.precisions:
        say(f"{spec.backbone}: network alone, {precision}")
        choice = EngineChoice("openvino", precision, folder / "cache")  # type: ignore[arg-type]
        tried = load_embedder(spec, weights_folder=folder, threads=cores, choice=choice)
        found[f"openvino {precision}"] = _network(tried, plan)
    say(f"{spec.backbone}: network alone, torch")
    judge = load_embedder(spec, weights_folder=folder, threads=cores, choice=EngineChoice("torch"))
    found["torch float32"] = _network(judge, plan)
    return found


def _network(embedder: Embedder, plan: SpeedPlan) -> dict[str, Any]:
    random, side = np.random.default_rng(plan.seed), embedder.identity.preprocessing.image_size
    engine = embedder.engine
    rates: dict[str, float] = {}
    for size in (1, BATCH_MAX):
        batch = random.normal(size=(size, 3, side, side)).astype(np.float32)
        engine.run(batch, (POOLED,))
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < plan.seconds / 2:
            engine.run(batch, (POOLED,))
            done += size
        rates[f"batch_{size}"] = done / (time.perf_counter() - began)
    return {
        "engine": engine.name,
        "precision": engine.precision,
        "comparable_with": embedder.runtime.comparable_with,
        "images_per_s": rates,
    }


def _baseline(backbone: str, images: list[bytes], plan: SpeedPlan, cores: int) -> dict[str, float]:
    """As most scripts do it: Pillow at full scale, torchvision's network at 224 px in eager float32, one by one."""
    network = getattr(import_torchvision().models, backbone)(weights=None).eval()
    network.fc = torch.nn.Identity()
    mean, std = (torch.tensor(three).reshape(3, 1, 1) for three in (IMAGENET_MEAN, IMAGENET_STD))
    side = (BASELINE_SIDE, BASELINE_SIDE)

    def one(turn: int) -> None:
        with Image.open(io.BytesIO(images[turn % len(images)])) as image:
            small = np.asarray(image.convert("RGB").resize(side, Image.Resampling.BILINEAR))
        tensor = (torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 255 - mean) / std
        with torch.inference_mode():
            network(tensor[None])

    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        one(0)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < plan.seconds:
            one(done)
            done += 1
        return {"images_per_s": done / (time.perf_counter() - began)}
    finally:
        torch.set_num_threads(before)


def _stages(embedder: Embedder, embedders: Embedders, images: list[bytes], pause_s: float) -> dict[str, float]:
    """Milliseconds (p50) of the parts of a request that are not HTTP.

    After a pause each takes longer: threads have gone to sleep, and what the part works on has left the caches.
    """
    prepared = [embedder.prepare(image, embedders.limits) for image in images]
    bank = np.random.default_rng(0).normal(size=(1000, embedder.width)).astype(np.float32)

    def search(turn: int) -> None:
        np.partition(1 - bank @ bank[turn % 1000], 3)

    def network(turn: int) -> None:
        embedder.embed([prepared[turn % len(prepared)]])

    def decode(turn: int) -> PreparedImage:
        return embedder.prepare(images[turn % len(images)], embedders.limits)

    parts = {"decode_ms": decode, "network_1_ms": network, "search_1000_ms": search}
    return {name: _p50(part, pause_s) for name, part in parts.items()}


@contextmanager
def _server(
    plan: SpeedPlan, spec: EmbeddingSpec, environment: dict[str, str] | None, images: list[bytes]
) -> Iterator[tuple[str, int, float]]:
    """A server that has answered before: its address, process, and the seconds it took to start. `C` has a bank."""
    wanted = {
        "ODDITY_BACKBONE": spec.backbone,
        "ODDITY_WEIGHTS": spec.weights,
        "ODDITY_IMAGE_SIZE": str(spec.image_size),
        "ODDITY_JOBS": "off",
        "ODDITY_LOG_LEVEL": "error",
        "ODDITY_PROCESSES": str(plan.processes),
        **({} if plan.threads is None else {"ODDITY_THREADS": str(plan.threads)}),
    }
    environment = {**(os.environ if environment is None else environment), **wanted}
    began = time.perf_counter()
    with TemporaryDirectory() as folder, running_server(environment, Path(folder)) as (url, process):
        start_s = time.perf_counter() - began
        with httpx2.Client(base_url=url, timeout=600) as http:
            http.put(C).raise_for_status()
            http.put(C_ADDED).raise_for_status()
            add_images(http, made_jpegs(plan.bank, SIZES["small"], plan.seed + 1))
        _warm(url, process.pid, plan, images)
        yield url, process.pid, start_s


def _service(
    plan: SpeedPlan, spec: EmbeddingSpec, images: list[bytes], environment: dict[str, str] | None, say: Say, size: str
) -> dict[str, Any]:
    say(f"{spec.backbone}: service, filling, {size}")
    with _server(plan, spec, environment, images) as (url, pid, start_s):
        found: dict[str, Any] = {"start_s": start_s, "clients": {}, "batched": {}}
        found["memory_idle_mib"] = sum(map(memory_mib, family_of(pid)))
        for clients in plan.clients:
            say(f"{spec.backbone}: service, {size}, {clients} clients")
            load = run_load(url, pid, clients, plan.seconds, posted(f"{C}/anomaly", images))
            found["clients"][str(clients)] = load.summary()
        for clients in plan.clients if plan.batch > 1 else ():
            say(f"{spec.backbone}: service, {size}, {clients} clients, {plan.batch} images a request")
            several = posted(f"{C}/anomaly", images, plan.batch)
            found["batched"][str(clients)] = run_load(url, pid, clients, plan.seconds, several).summary(plan.batch)
        say(f"{spec.backbone}: service, {size}, adding")
        added = made_jpegs(ADDED[size], SIZES[size], plan.seed + 2)
        found["adding"] = add_steadily(url, pid, added, plan.seconds)
        found["memory_most_mib"] = sum(map(memory_mib, family_of(pid)))
    return found


def _turns(
    plan: SpeedPlan,
    spec: EmbeddingSpec,
    images: list[bytes],
    embedder: Embedder,
    embedders: Embedders,
    environment: dict[str, str] | None,
    say: Say,
    size: str,
) -> list[dict[str, float]]:
    """What the bars compare, in images a second and milliseconds, of each turn."""
    short = replace(plan, seconds=min(plan.seconds, TURN_S))
    cores = plan.threads or len(os.sched_getaffinity(0))
    added = made_jpegs(ADDED[size], SIZES[size], plan.seed + 2)
    found = []
    with _server(plan, spec, environment, images) as (url, pid, _):

        def loaded(clients: int, batch: int = 1) -> dict[str, float]:
            return run_load(url, pid, clients, short.seconds, posted(f"{C}/anomaly", images, batch)).summary(batch)

        def adding(clients: int, numbered: int) -> float:
            first = numbered * TURN_IMAGES
            return add_steadily(url, pid, added, short.seconds, first, C_ADDED, clients)["images_per_s"]

        for turn in range(plan.turns):
            say(f"{spec.backbone}: what the bars compare, {size}, turn {turn + 1} of {plan.turns}")
            found.append(
                {
                    "decoder": _decoder(embedders, embedder, images, short.seconds)["images_per_s"],
                    "network": _network(embedder, short)["images_per_s"][f"batch_{BATCH_MAX}"],
                    "baseline": _baseline(spec.backbone, images, short, cores)["images_per_s"],
                    "scoring": loaded(MANY)["images_per_s"],
                    "batched": loaded(SEVERAL, plan.batch)["images_per_s"],
                    "adding": adding(1, 2 * turn),
                    "adding_by_several": adding(SEVERAL, 2 * turn + 1),
                    "alone_ms": loaded(1)["p50_ms"],
                    "parts_ms": sum(_stages(embedder, embedders, images, 0.0).values()),
                    "parts_after_a_pause_ms": sum(_stages(embedder, embedders, images, PAUSE_S).values()),
                }
            )
    return found


def _warm(url: str, pid: int, plan: SpeedPlan, images: list[bytes]) -> None:
    """Ask until every process that serves has answered: then decoders are beside it."""
    for _ in range(WARM_TURNS):
        run_load(url, pid, BATCH_MAX, WARM_S, posted(f"{C}/anomaly", images))
        serving = [pid] if plan.processes == 1 else family_of(pid)[1 : 1 + plan.processes]
        if all(len(family_of(one)) > 1 for one in serving):
            return


def add_steadily(
    url: str, pid: int, images: list[bytes], seconds: float, first: int = 0, path: str = C, clients: int = 1
) -> dict[str, float]:
    """Durable adding in batches of 32, each client's one after the other; p50, p95 and p99 are of a batch.

    The files are numbered from `first` on, so that none is a duplicate.

    Raises:
        BenchmarkRefused: the collection does not hold as many images more as were sent.
    """
    before = _held(url, path)
    load = run_load(url, pid, clients, seconds, posted_anew(f"{path}/images", images, BATCH_SENT, first))
    sent, created = BATCH_SENT * sum(map(len, load.milliseconds.values())), _held(url, path) - before
    if created != sent:
        raise BenchmarkRefused(f"Adding {sent} images must make as many; it made {created}.")
    told = load.summary(BATCH_SENT)
    return {**told, "cpu_ms": 1000 * load.server_cpu_s / (BATCH_SENT * told["answers"])}


def _held(url: str, path: str) -> int:
    """Images of a collection."""
    images: int = httpx2.get(url + path, timeout=600).raise_for_status().json()["images"]
    return images


def add_images(http: httpx2.Client, images: list[bytes]) -> int:
    """How many of these JPEGs the collection `C` took, sent 32 at a time."""
    created = 0
    for start in range(0, len(images), BATCH_SENT):
        some = images[start : start + BATCH_SENT]
        files = [("files", (f"{start + place}.jpg", data)) for place, data in enumerate(some)]
        created += http.post(f"{C}/images", files=files).raise_for_status().json()["created"]
    return created


def _p50(once: Callable[[int], object], pause_s: float = 0.0) -> float:
    took = []
    for turn in range(TURNS):
        if pause_s:
            time.sleep(pause_s)
        began = time.perf_counter()
        once(turn)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def _ratios(turns: list[dict[str, float]]) -> dict[str, list[float]]:
    """Each bar's ratio in every turn."""

    def of(one: dict[str, float]) -> dict[str, float]:
        ceiling = 1 / (1 / one["decoder"] + 1 / one["network"])
        return {
            "service_over_ceiling": one["scoring"] / ceiling,
            "batched_over_ceiling": one["batched"] / ceiling,
            "service_over_baseline": one["scoring"] / one["baseline"],
            "batched_over_baseline": one["batched"] / one["baseline"],
            "adding_over_scoring": one["adding"] / one["scoring"],
            "adding_by_several_over_scoring": one["adding_by_several"] / one["scoring"],
            "idle_p50_over_parts": one["alone_ms"] / one["parts_ms"],
            "idle_p50_over_parts_after_a_pause": one["alone_ms"] / one["parts_after_a_pause_ms"],
        }

    found = list(map(of, turns))
    return {name: [one[name] for one in found] for name in found[0]}


def speed_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    lines = [
        f"{found['threads']} threads; service in {found['plan']['processes']} process(es); "
        f"{found['plan']['seconds']:g} s each.",
        "",
    ]
    for backbone, one in found["backbones"].items():
        runtime = one["runtime"]
        lines += [
            f"## {backbone}",
            "",
            f"{one['image_size']} px, weights {one['weights']}, served by {runtime['engine']} in "
            f"{runtime['precision']}, loaded in {one['first_load_s']:.1f} s with its check; {runtime['processor']}.",
            "",
        ]
        if "network" in one:
            rows = [
                (name, f"{it['engine']} {it['precision']}", *(f"{rate:.1f}" for rate in it["images_per_s"].values()))
                for name, it in one["network"].items()
            ]
            lines += table(["network alone, images/s", "computed by", "batch 1", f"batch {BATCH_MAX}"], rows)
        baseline = f"torchvision at {BASELINE_SIDE} px, one at a time"
        for title, part in (("decoder alone", "decoder"), (baseline, "baseline")):
            if part in one:
                rows = [(size, f"{it['images_per_s']:.1f}") for size, it in one[part].items()]
                lines += table([title, "images/s"], rows)
        if "stages" in one:
            rows = [
                (f"{size}{when}", *(f"{value:.2f}" for value in it.values()))
                for name, when in (("stages", ""), ("stages_after_a_pause", f", each after {1000 * PAUSE_S:g} ms"))
                for size, it in one[name].items()
            ]
            lines += table(["parts of one request, ms", "decode", "network", "search of 1000"], rows)
        if "service" in one:
            lines += _service_text(one, found["plan"]["batch"])
        if one["ratios"]:
            lines += _bars_text(one["ratios"], found["plan"])
    return lines


def _service_text(one: dict[str, Any], batch: int) -> list[str]:
    rows = [
        (
            f"{size}, {clients} clients{images}",
            f"{load['images_per_s']:.1f}",
            *(f"{load[part]:.1f}" for part in ("p50_ms", "p95_ms", "p99_ms")),
            f"{100 * load['generator_cpu_share']:.0f} %",
        )
        for size, it in one["service"].items()
        for name, images in (("clients", ""), ("batched", f", {batch} images a request"))
        for clients, load in it[name].items()
    ]
    lines = table(["scoring", "images/s", "p50 ms", "p95 ms", "p99 ms", "clients' processor time"], rows)
    rows = [
        (
            size,
            f"{it['adding']['images_per_s']:.1f}",
            f"{it['start_s']:.1f}",
            f"{it['memory_idle_mib']:.0f}",
            f"{it['memory_most_mib']:.0f}",
        )
        for size, it in one["service"].items()
    ]
    return lines + table(["service", "adding, images/s", "start, s", "memory idle, MiB", "at most, MiB"], rows)


def _bars_text(ratios: dict[str, dict[str, list[float]]], plan: dict[str, Any]) -> list[str]:
    bars = {
        "service_over_ceiling": f"at least {BAR_OF_CEILING:g}",
        "batched_over_ceiling": "",
        "service_over_baseline": "at least 10, and 6 in bf16 at 224 px",
        "batched_over_baseline": "",
        "adding_over_scoring": f"at least {BAR_OF_ADDING:g}",
        "adding_by_several_over_scoring": f"at least {BAR_OF_ADDING:g}",
        "idle_p50_over_parts": f"at most {BAR_OF_IDLE:g}",
        "idle_p50_over_parts_after_a_pause": "",
    }
    rows = [
        (
            f"{size}: {name.replace('_', ' ')}",
            f"{statistics.median(found[name]):.2f}",
            f"{min(found[name]):.2f} to {max(found[name]):.2f}",
            bar,
        )
        for size, found in ratios.items()
        for name, bar in bars.items()
    ]
    told = (
        f"Measured in turn for {min(plan['seconds'], TURN_S):g} s each: scoring by {MANY} clients, batched by "
        f"{SEVERAL} who send {plan['batch']} images a request, adding by one and by {SEVERAL} who send {BATCH_SENT}."
    )
    return [told, "", *table(["ratio", "median", "of the turns", "bar"], rows)]
