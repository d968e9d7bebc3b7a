"""What runs a backbone: the interface every engine offers, and the torch engine."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from models.runtime import use_threads
from models.torchvision_import import import_torchvision

POOLED = "pooled"


def stage_output(stage: int) -> str:
    """Name of the output that holds the map of one stage."""
    return f"stage{stage}"


class Engine(Protocol):
    """A frozen backbone on one kind of processor; many threads may call run() at the same time."""

    name: str  # "torch"
    precision: str  # "float32"
    threads: int

    def run(self, batch: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The outputs asked for, computed in one pass; a row never depends on its mates.

        Shapes: batch (B, 3, S, S) -> "pooled" (B, width); "stage1" to "stage4" (B, h, w, channels).
        """


class TorchEngine:
    """The backbone in torch on the processor, in float32.

    Batch normalisation is folded into the convolution before it (in float64, rounded once) and channels are
    innermost in memory.
    """

    name = "torch"
    precision = "float32"

    def __init__(
        self, backbone: str, tensors: Mapping[str, NDArray[np.float32]], stages: Sequence[int], threads: int
    ) -> None:
        self.threads = threads
        self._stages = tuple(stages)
        network = _meta_network(backbone)
        state = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
        network.load_state_dict(state, strict=False, assign=True)
        network.eval().requires_grad_(False)
        _fold_normalisation(network)
        self._stem = torch.nn.Sequential(network.conv1, network.relu, network.maxpool)
        self._layers = (network.layer1, network.layer2, network.layer3, network.layer4)

    def run(self, batch: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        use_threads(self.threads)
        asked = {stage for stage in range(1, 5) if stage_output(stage) in outputs}
        pooled = set(self._stages) if POOLED in outputs else set()
        means: list[torch.Tensor] = []
        found: dict[str, NDArray[np.float32]] = {}
        with torch.inference_mode():
            features = self._stem(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
            for stage in range(1, max(asked | pooled, default=0) + 1):
                features = self._layers[stage - 1](features)
                if stage in pooled:
                    means.append(features.mean(dim=(2, 3)))
                if stage in asked:
                    found[stage_output(stage)] = features.permute(0, 2, 3, 1).contiguous().numpy()
            if means:
                found[POOLED] = torch.cat(means, dim=1).numpy()
        return found


def tensor_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that weights of this backbone must hold, in its order; no classifier."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in _meta_network(backbone).state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def _meta_network(backbone: str) -> Any:
    # On the meta device nothing is drawn, so torch's global random state stays as it was.
    with torch.device("meta"):
        return getattr(import_torchvision().models, backbone)(weights=None)


def _fold_normalisation(network: torch.nn.Module) -> None:
    for module in list(network.modules()):
        children = dict(module.named_children())
        if isinstance(module, torch.nn.Sequential) and len(children) == 2 and "1" in children:
            pairs = [("0", "1")]
        else:
            pairs = [(name, f"bn{name[4:]}") for name in children if name.startswith("conv")]
        for convolution_name, normalisation_name in pairs:
            normalisation = children.get(normalisation_name)
            if isinstance(normalisation, torch.nn.BatchNorm2d):
                convolution = children[convolution_name]
                assert isinstance(convolution, torch.nn.Conv2d)
                setattr(module, convolution_name, _folded(convolution, normalisation))
                setattr(module, normalisation_name, torch.nn.Identity())


def _folded(convolution: torch.nn.Conv2d, normalisation: torch.nn.BatchNorm2d) -> torch.nn.Conv2d:
    assert normalisation.running_var is not None and normalisation.running_mean is not None
    scale = normalisation.weight.double() / torch.sqrt(normalisation.running_var.double() + normalisation.eps)
    bias = normalisation.bias.double() - normalisation.running_mean.double() * scale
    weight = convolution.weight.double() * scale.reshape(-1, 1, 1, 1)
    convolution.weight = torch.nn.Parameter(
        weight.float().contiguous(memory_format=torch.channels_last), requires_grad=False
    )
    convolution.bias = torch.nn.Parameter(bias.float(), requires_grad=False)
    return convolution
