"""Which engine computes the vectors, at which precision: from what the settings ask to what passed the gate.

The quickest candidate is tried first; one that cannot run here, or whose vectors differ too much from torch's, is
passed over with a line in the log, and the next safer one is tried. The last is torch in float32 itself.

There are two functions of the same weights whose vectors are not compared: the network in floating point, and the
network in 8-bit integers (models.backbones.quantisation). Each is judged by torch, and each is computed by several
engines whose vectors may be mixed. Deep networks of large steps carry the rounding of floating point on until int8 of
two engines differs visibly; int8 that was asked for is then told apart by engine and processor, and never a default.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.backbones import openvino_engine, torch_engine
from models.backbones.engine import Engine, FeaturePooling
from models.backbones.openvino_engine import OpenVinoEngine, build_graph
from models.backbones.parity import EDITION, Parity, kept_parity, measure_parity
from models.backbones.quantisation import range_names, ranges_sha256
from models.backbones.ranges import measured_ranges
from models.backbones.torch_engine import TorchEngine
from models.errors import EngineUnusable, ParameterInvalid
from models.preprocessing import Preprocessing
from models.runtime import COMPARABLE, library_versions, processor_name

log = logging.getLogger("oddity.engine")

EngineName = Literal["auto", "openvino", "torch", "cuda"]
PrecisionName = Literal["auto", "exact", "float32", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the settings ask for; `cache_folder` keeps what was measured (None: nothing is kept).

    `niceness` is how far the engine's own threads stand back for all others of this process; only OpenVINO heeds it.

    `auto` takes a GPU where there is one, else OpenVINO: in 8-bit integers for weights that bring their ranges, at the
    image size these were measured at, else in the quickest floating point that the processor has in hardware. `exact`
    is float32 with every shortcut off.
    """

    engine: EngineName = "auto"
    precision: PrecisionName = "auto"
    cache_folder: Path | None = None
    niceness: int = 0

    def __post_init__(self) -> None:
        for name, names in (("engine", get_args(EngineName)), ("precision", get_args(PrecisionName))):
            if getattr(self, name) not in names:
                raise ParameterInvalid(
                    f"`{name}` of the network must be one of {', '.join(names)}; got {getattr(self, name)}."
                )


@dataclass(frozen=True, slots=True)
class Network:
    """Which function is computed, whatever computes it."""

    backbone: str
    weights_sha256: str
    tensors: Mapping[str, NDArray[np.float32]]
    stages: tuple[int, ...]
    preprocessing: Preprocessing
    ranges: Mapping[str, float] | None = None  # of activations, for 8-bit integers, where the weights bring them
    ranges_side: int | None = None  # of the images that they were measured on
    pooling: FeaturePooling = "mean"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An engine that may serve, and whose vectors its own may be mixed with."""

    engine: Engine
    comparable_with: str  # COMPARABLE, or a name of its own
    parity: Parity | None  # None: it is the judge itself


def check_engine(choice: EngineChoice) -> None:
    """Nothing, where the engine named can run on this machine. Raises EngineUnusable."""
    if choice.engine == "cuda" and not torch_engine.gpu_precisions():
        raise EngineUnusable(
            "`engine` cuda must find a GPU that torch can use; there is none. Choose auto or openvino."
        )


def choose_engine(network: Network, choice: EngineChoice, threads: int) -> Chosen:
    """The quickest engine that the choice allows, the machine runs and the gate lets through.

    Raises:
        EngineUnusable: a GPU is asked for by name and there is none.
    """
    check_engine(choice)
    judges = _Judges(network, threads)
    is_int8_usual = network.ranges is not None and network.ranges_side == network.preprocessing.image_size
    for kind, precision in _candidates(choice, is_int8_usual=is_int8_usual):
        what = f"{kind} {precision} for {network.backbone}"
        try:
            ranges = _ranges(network, choice) if precision == "int8" else None
            engine = _made(network, kind, precision, threads, ranges, choice.niceness)
            parity = _measured(engine, network, choice, judges.floating, ranges)
            near = parity if ranges is None else _measured(engine, network, choice, judges.of(ranges), ranges, "int8")
        except (EngineUnusable, RuntimeError) as error:  # engines say by RuntimeError that they cannot go on
            log.warning("%s is passed over: %s", what, error)
            continue
        if not (parity.is_usable_apart if ranges is not None else _may_be_mixed(parity, precision)):
            log.warning("%s is passed over: it differs too much from float32: %s", what, parity.describe())
            continue
        comparable_with = COMPARABLE if ranges is None else int8_name(ranges)
        if near is not parity and not near.is_comparable:
            log.warning("%s differs too much from torch's int8 to be mixed with it: %s", what, near.describe())
            if choice.precision != "int8":
                continue
            comparable_with += f" by {engine.name} on {processor_name()}"
        log.info("%s passed the gate: %s", what, parity.describe())
        return Chosen(engine, comparable_with, parity)
    return Chosen(judges.floating(), COMPARABLE, None)


def int8_name(ranges: Mapping[str, float]) -> str:
    """What vectors of the network in 8-bit integers with these ranges may be mixed with."""
    return f"int8 {ranges_sha256(ranges)[:16]}"


def _may_be_mixed(parity: Parity, precision: str) -> bool:
    return parity.is_float32 if precision in ("float32", "exact") else parity.is_comparable


class _Judges:
    """Torch on the processor, of each function; loaded when there is something to judge."""

    def __init__(self, network: Network, threads: int) -> None:
        self._network = network
        self._threads = threads
        self._floating: TorchEngine | None = None

    def floating(self) -> TorchEngine:
        self._floating = self._floating or self._loaded("float32", None)
        return self._floating

    def of(self, ranges: Mapping[str, float]) -> Callable[[], TorchEngine]:
        return lambda: self._loaded("int8", ranges)

    def _loaded(self, precision: str, ranges: Mapping[str, float] | None) -> TorchEngine:
        one = self._network
        return TorchEngine(
            one.backbone,
            one.tensors,
            one.stages,
            self._threads,
            precision=precision,
            ranges=ranges,
            pooling=one.pooling,
        )


def _candidates(choice: EngineChoice, *, is_int8_usual: bool) -> Iterator[tuple[str, str]]:
    """Engine and precision, the first choice first; torch in float32 comes after all of them."""
    gpu = torch_engine.gpu_precisions() if choice.engine in ("auto", "cuda") else ()
    kind, native = ("cuda", gpu) if gpu else ("openvino", openvino_engine.native_precisions())
    if choice.engine == "torch":
        kind, native = "torch", ()
        if choice.precision == "bf16":
            log.warning("torch on a processor computes in float32, not in bf16")
    if choice.precision == "int8" or (choice.precision == "auto" and is_int8_usual and kind == "openvino"):
        yield kind, "int8"
    if choice.precision == "int8" and kind != "torch":
        yield "torch", "int8"  # slow, and better than to refuse what is stored
    if kind == "torch":
        return
    if choice.precision == "bf16" and "bf16" not in native:
        log.warning("bf16 is passed over: this processor does not compute in it natively")
    if choice.precision in ("auto", "bf16", "int8") and "bf16" in native:
        yield kind, "bf16"
    yield kind, "exact" if choice.precision == "exact" else "float32"


def _ranges(network: Network, choice: EngineChoice) -> Mapping[str, float]:
    if network.ranges is not None:
        return network.ranges
    facts: dict[str, object] = {"backbone": network.backbone, "weights": network.weights_sha256}

    def build() -> object:
        return build_graph(network.backbone, network.tensors, network.stages, network.preprocessing.image_size)

    return measured_ranges(facts, range_names(network.tensors), build, network.preprocessing, choice.cache_folder)


def _made(
    network: Network, kind: str, precision: str, threads: int, ranges: Mapping[str, float] | None, niceness: int
) -> Engine:
    name = "float32" if precision == "exact" else precision
    if kind != "openvino":
        device = "cuda" if kind == "cuda" else "cpu"
        return TorchEngine(
            network.backbone,
            network.tensors,
            network.stages,
            threads,
            device=device,
            precision=name,
            ranges=ranges,
            pooling=network.pooling,
        )
    side = network.preprocessing.image_size
    graph = build_graph(network.backbone, network.tensors, network.stages, side, ranges, network.pooling)
    return OpenVinoEngine(graph, name, threads, is_exact=precision == "exact", niceness=niceness)


def _measured(
    engine: Engine,
    network: Network,
    choice: EngineChoice,
    judge: Callable[[], Engine],
    ranges: Mapping[str, float] | None,
    against: str = "float32",
) -> Parity:
    key = {
        "edition": EDITION,
        "backbone": network.backbone,
        "weights": network.weights_sha256,
        "stages": list(network.stages),
        "pooling": network.pooling,
        "preprocessing": network.preprocessing.describe(),
        "engine": engine.name,
        "precision": engine.precision,
        "ranges": None if ranges is None else ranges_sha256(ranges),
        "against": against,
        "hints": engine.hints,
        "processor": processor_name(),
        "versions": library_versions(),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = None if choice.cache_folder is None else choice.cache_folder / "parity" / f"{name}.json"
    return kept_parity(path, lambda: measure_parity(engine, judge(), network.preprocessing))
