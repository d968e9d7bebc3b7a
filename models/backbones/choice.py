"""Which engine computes the vectors, at which precision: from what the settings ask to what passed the gate.

The quickest candidate is tried first; one that cannot run here, or whose vectors differ too much from torch's in
float32, is passed over with a line in the log, and the next safer one is tried. The last is torch in float32 itself.
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
from models.backbones.engine import Engine
from models.backbones.openvino_engine import OpenVinoEngine, build_graph
from models.backbones.parity import EDITION, Parity, kept_parity, measure_parity
from models.backbones.quantisation import quantised_graph
from models.backbones.torch_engine import TorchEngine
from models.errors import EngineUnusable, ParameterInvalid
from models.preprocessing import Preprocessing
from models.runtime import COMPARABLE, library_versions, processor_name

log = logging.getLogger("oddity.engine")

EngineName = Literal["auto", "openvino", "torch", "cuda"]
PrecisionName = Literal["auto", "exact", "float32", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the settings ask for; `cache_folder` keeps what was measured and quantised (None: nothing is kept).

    `auto` takes a GPU where there is one, else OpenVINO, and the quickest floating point that the processor has in
    hardware. `int8` is never taken unasked. `exact` is float32 with every shortcut off.
    """

    engine: EngineName = "auto"
    precision: PrecisionName = "auto"
    cache_folder: Path | None = None

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
    judge: TorchEngine | None = None

    def judged() -> TorchEngine:
        nonlocal judge
        judge = judge or TorchEngine(network.backbone, network.tensors, network.stages, threads)
        return judge

    for kind, precision in _candidates(choice):
        what = f"{kind} {precision} for {network.backbone}"
        try:
            engine, digest = _made(network, choice, kind, precision, threads)
            parity = _measured(engine, digest, network, choice, judged)
        except EngineUnusable as error:
            log.warning("%s is passed over: %s", what, error)
            continue
        comparable_with = _comparable_with(parity, precision, digest)
        if comparable_with is None:
            log.warning("%s is passed over: it differs too much from float32: %s", what, parity.describe())
            continue
        log.info("%s passed the gate: %s", what, parity.describe())
        return Chosen(engine, comparable_with, parity)
    return Chosen(judged(), COMPARABLE, None)


def _candidates(choice: EngineChoice) -> Iterator[tuple[str, str]]:
    """Engine and precision, the first choice first; torch in float32 comes after all of them."""
    gpu = torch_engine.gpu_precisions() if choice.engine in ("auto", "cuda") else ()
    kind, native = ("cuda", gpu) if gpu else ("openvino", openvino_engine.native_precisions())
    if choice.engine == "torch":
        if choice.precision not in ("auto", "exact", "float32"):
            log.warning("torch on a processor computes in float32 only, not in %s", choice.precision)
        return
    if choice.precision == "int8":
        if kind == "openvino":
            yield kind, "int8"
        else:
            log.warning("int8 is computed by OpenVINO only; the GPU serves in floating point")
    if choice.precision == "bf16" and "bf16" not in native:
        log.warning("bf16 is passed over: this processor does not compute in it natively")
    if choice.precision in ("auto", "bf16", "int8") and "bf16" in native:
        yield kind, "bf16"
    yield kind, "exact" if choice.precision == "exact" else "float32"


def _made(network: Network, choice: EngineChoice, kind: str, precision: str, threads: int) -> tuple[Engine, str]:
    """The engine, and what tells its weights apart from the same network's in another precision."""
    name = "float32" if precision == "exact" else precision
    if kind == "cuda":
        engine = TorchEngine(network.backbone, network.tensors, network.stages, threads, device="cuda", precision=name)
        return engine, ""
    side = network.preprocessing.image_size

    def build() -> object:
        return build_graph(network.backbone, network.tensors, network.stages, side)

    if precision != "int8":
        return OpenVinoEngine(build(), name, threads, is_exact=precision == "exact"), ""
    facts: dict[str, object] = {
        "backbone": network.backbone,
        "weights": network.weights_sha256,
        "stages": list(network.stages),
    }
    graph, digest = quantised_graph(facts, build, network.preprocessing, choice.cache_folder)
    return OpenVinoEngine(graph, "int8", threads), digest


def _measured(
    engine: Engine, digest: str, network: Network, choice: EngineChoice, judged: Callable[[], Engine]
) -> Parity:
    key = {
        "edition": EDITION,
        "backbone": network.backbone,
        "weights": network.weights_sha256,
        "stages": list(network.stages),
        "preprocessing": network.preprocessing.describe(),
        "engine": engine.name,
        "precision": engine.precision,
        "quantised": digest,
        "hints": engine.hints,
        "processor": processor_name(),
        "versions": library_versions(),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = None if choice.cache_folder is None else choice.cache_folder / "parity" / f"{name}.json"
    return kept_parity(path, lambda: measure_parity(engine, judged(), network.preprocessing))


def _comparable_with(parity: Parity, precision: str, digest: str) -> str | None:
    """What the engine's vectors may be mixed with; None: it may not serve."""
    if precision in ("float32", "exact"):
        return COMPARABLE if parity.is_float32 else None
    if parity.is_comparable:
        return COMPARABLE
    return f"int8 {digest[:16]}" if precision == "int8" and parity.is_usable_apart else None
