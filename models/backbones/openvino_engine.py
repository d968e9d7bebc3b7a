"""The backbone in OpenVINO: the usual engine on processors.

The network is written node by node from the folded weights, with the batch as the only free size. OpenVINO makes the
kernels of a batch size when that size comes for the first time and keeps them, so that one compiled network serves all
sizes: the vectors have the same bits as those of a network compiled for the one size, the weights lie in memory once,
and nothing is compiled again. Compiling takes a fraction of a second, as long as reading OpenVINO's own cache would,
so none is kept.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.backbones.engine import BATCH_MAX, BATCH_SIZES, POOLED, FeaturePooling, stage_output
from models.backbones.network import FoldedNetwork, folded_network
from models.backbones.quantisation import LEVELS, later_convolutions, rounded_weights
from models.backbones.record import STAGES
from models.errors import EngineUnusable
from models.niceness import stand_back

absent = ""  # why there is no OpenVINO
try:
    from models.openvino_import import openvino
    from models.openvino_import import opset13 as ops
except ImportError as error:  # a machine it has no wheel for: torch runs there
    openvino, ops, absent = None, None, str(error)

DEVICE = "CPU"
MAPS = tuple(map(stage_output, STAGES))
_PRECISIONS = {"f32": "float32", "bf16": "bf16", "f16": "float16"}
_HINTS = (
    "INFERENCE_PRECISION_HINT",
    "EXECUTION_MODE_HINT",
    "PERFORMANCE_HINT",
    "INFERENCE_NUM_THREADS",
    "NUM_STREAMS",
    "ENABLE_CPU_PINNING",
)


class OpenVinoEngine:
    """A network as `build_graph` made it, compiled for the processor with every hint set.

    Which outputs are computed is decided by compiling a part of the graph for each set of outputs asked for, when it is
    asked for first: maps of early stages do not cost the later ones.
    """

    name = "openvino"
    runs_at_once = 2  # one is computed, and the next begins when that ends, whatever Python is busy with

    def __init__(self, graph: Any, precision: str, threads: int, *, is_exact: bool = False, niceness: int = 0) -> None:
        """`niceness` is how far OpenVINO's own threads stand back for all others (Linux; elsewhere they do not).

        Raises EngineUnusable: OpenVINO is absent, refuses the network, or computes otherwise than it was told.
        """
        require_openvino()
        self.threads = threads
        self._niceness = niceness
        self._graph = graph
        # What int8 leaves in floating point is float32 everywhere: in bf16 it would be another function.
        is_wide = precision in ("float32", "int8")
        self._config = {
            "INFERENCE_PRECISION_HINT": "f32" if is_wide else "bf16",
            "EXECUTION_MODE_HINT": "ACCURACY" if is_exact else "PERFORMANCE",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # decoders and jobs share the cores
        }
        self._requests: dict[tuple[str, ...], SimpleQueue[Any]] = {}
        self._lock = threading.Lock()
        compiled = self._compiled((POOLED,))
        self.hints = {name: _plain(compiled.get_property(name)) for name in _HINTS}
        found = _PRECISIONS.get(self.hints["INFERENCE_PRECISION_HINT"], self.hints["INFERENCE_PRECISION_HINT"])
        expected = "float32" if is_wide else "bf16"
        if found != expected:
            raise EngineUnusable(f"`precision` of OpenVINO must be {expected}; it says that it computes in {found}.")
        self.precision = "int8" if precision == "int8" else found
        self._requests[(POOLED,)] = self._requests_of(compiled)

    def run(self, batch: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        assert len(batch) in BATCH_SIZES
        wanted = set(outputs)
        if self.precision == "bf16" and wanted - {POOLED}:
            # OpenVINO leaves what follows the last convolution of a part in float32 and rounds it elsewhere, so that a
            # map would hang on what else is asked for. All of them together are one part; the pooled ones another.
            found = self._run(batch, MAPS, wanted)
            return found if POOLED not in wanted else found | self._run(batch, (POOLED,), wanted)
        return self._run(batch, tuple(sorted(wanted)), wanted) if wanted else {}

    def _run(
        self, batch: NDArray[np.float32], names: tuple[str, ...], wanted: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            requests = self._requests.get(names)
            if requests is None:
                requests = self._requests[names] = self._requests_of(self._compiled(names))
        request = requests.get()
        try:
            # Requests of one network are computed one after another: each has all threads.
            request.start_async([np.ascontiguousarray(batch)], share_inputs=True)
            request.wait()
            return {
                name: request.get_output_tensor(place).data.copy() for place, name in enumerate(names) if name in wanted
            }
        finally:
            requests.put(request)

    def _requests_of(self, compiled: Any) -> "SimpleQueue[Any]":
        free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.runs_at_once):
            free.put(compiled.create_infer_request())
        return free

    def _compiled(self, names: tuple[str, ...]) -> Any:
        sources = [self._graph.output(name).get_node().input_value(0) for name in names]
        try:
            part = openvino.Model(sources, self._graph.get_parameters(), "backbone")
            # The threads of a network are started when it is compiled, and are as nice as the one that compiles.
            with ThreadPoolExecutor(1, initializer=stand_back, initargs=(self._niceness,)) as compiling:
                return compiling.submit(core().compile_model, part, DEVICE, self._config).result()
        except RuntimeError as error:
            raise EngineUnusable(f"`network` must compile in OpenVINO; {_first_line(error)}") from error


@cache
def core() -> Any:
    """OpenVINO with its plug-in for processors, loaded once."""
    return openvino.Core()


def require_openvino() -> None:
    """Nothing, where OpenVINO is installed. Raises EngineUnusable."""
    if openvino is None:
        raise EngineUnusable(f"`engine` openvino must be installed; importing it failed: {absent}.")


def native_precisions() -> tuple[str, ...]:
    """What this processor computes natively in OpenVINO, the quickest first of those that round floating point."""
    if openvino is None:
        return ("float32",)
    able = core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "float32") if "BF16" in able else ("float32",)


def build_graph(
    backbone: str,
    tensors: Mapping[str, NDArray[np.float32]],
    stages: Sequence[int],
    image_size: int,
    ranges: Mapping[str, float] | None = None,
    pooling: FeaturePooling = "mean",
) -> Any:
    """The network as an OpenVINO graph with outputs "pooled" and "stage1" to "stage4" in float32.

    With ranges it is the network in 8-bit integers that models.backbones.quantisation describes.

    Shapes: image (1 to 16, 3, S, S) -> as Engine.run.

    Raises:
        EngineUnusable: OpenVINO is absent.
    """
    require_openvino()
    network = folded_network(backbone, tensors)
    image = ops.parameter([openvino.Dimension(1, BATCH_MAX), 3, image_size, image_size], np.float32, name="image")
    return _graph(network, image, stages, ranges, pooling)


def _graph(
    network: FoldedNetwork,
    image: Any,
    stages: Sequence[int],
    ranges: Mapping[str, float] | None,
    pooling: FeaturePooling,
) -> Any:
    features = ops.relu(_convolved(image, network.stem[0], "conv1"))
    if ranges is not None:  # before the maximum, which then compares bytes; after it would be the same
        features = _rounded(features, ranges["layer1.0"])
    features = ops.max_pool(features, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    space = ops.constant(np.array([2, 3]))
    means: list[Any] = []
    results: list[Any] = []
    for stage, layer in enumerate(network.layers, start=1):
        for number, block in enumerate(layer):
            features = _residual(features, f"layer{stage}.{number}", block, ranges)
        if stage in stages:
            means.append(ops.reduce_mean(features, space, keep_dims=False))
        innermost = ops.transpose(features, ops.constant(np.array([0, 2, 3, 1])))
        results.append(_result(innermost, stage_output(stage)))
    vectors = ops.concat(means, axis=1) if len(means) > 1 else means[0]
    results.append(_result(ops.sqrt(vectors) if pooling == "sqrt_mean" else vectors, POOLED))
    return openvino.Model(results, [image], "backbone")


def _residual(features: Any, name: str, block: Any, ranges: Mapping[str, float] | None) -> Any:
    """Basic and bottleneck block of torchvision's ResNet, both orders of convolutions."""
    in_bytes = ranges is not None
    if ranges is not None and name != "layer1.0":
        features = _rounded(features, ranges[name])
    beside = features
    if block.downsample is not None:
        beside = _convolved(features, block.downsample[0], f"{name}.downsample", in_bytes=in_bytes)
    branch = _convolved(features, block.conv1, f"{name}.conv1", in_bytes=in_bytes)
    for part in later_convolutions(block):
        branch = ops.relu(branch)
        if ranges is not None:
            branch = _rounded(branch, ranges[f"{name}.{part}"])
        branch = _convolved(branch, getattr(block, part), f"{name}.{part}", in_bytes=in_bytes)
    return ops.relu(ops.add(branch, beside))


def _rounded(features: Any, top: float) -> Any:
    low, high = ops.constant(np.float32(0)), ops.constant(np.float32(top))
    return ops.fake_quantize(features, low, high, low, high, LEVELS)


def _convolved(features: Any, convolution: Any, name: str, *, in_bytes: bool = False) -> Any:
    weight = convolution.weight.detach().contiguous().numpy()
    assert convolution.bias is not None
    bias = ops.constant(convolution.bias.detach().numpy().reshape(1, -1, 1, 1))
    padding = [int(side) for side in convolution.padding]
    geometry = (list(convolution.stride), padding, padding, list(convolution.dilation))
    groups = convolution.groups

    def grouped(array: NDArray[Any]) -> Any:
        return ops.constant(array if groups == 1 else array.reshape(groups, -1, *array.shape[1:]))

    if in_bytes:
        levels, scales = rounded_weights(weight)
        filters = ops.multiply(ops.convert(grouped(levels), np.float32), grouped(scales))
    else:
        filters = grouped(weight)
    convolved = (ops.convolution if groups == 1 else ops.group_convolution)(features, filters, *geometry)
    convolved.set_friendly_name(name)
    return ops.add(convolved, bias)


def _result(node: Any, name: str) -> Any:
    result = ops.result(node)
    node.output(0).get_tensor().set_names({name})
    return result


def _plain(value: Any) -> str:
    """A property as OpenVINO writes it: Python shows some as objects."""
    name = getattr(value, "get_type_name", None)
    if name is not None:
        return str(name())
    return str(getattr(value, "name", value))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
