"""A torchvision ResNet cut to what embeddings need: no classifier, batch normalisation folded away."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.torchvision_import import import_torchvision


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """Frozen parts in the order they run: the stem, then one part for each stage."""

    stem: torch.nn.Sequential  # convolution, ReLU, maximum pooling
    layers: tuple[torch.nn.Sequential, ...]

    def blocks(self) -> Iterator[tuple[str, Any]]:
        """The residual blocks with torchvision's names of them ("layer1.0"), in the order they run."""
        for stage, layer in enumerate(self.layers, start=1):
            for number, block in enumerate(layer):
                yield f"layer{stage}.{number}", block


def tensor_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that weights of this backbone must hold, in its order; no classifier."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in _meta_network(backbone).state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def folded_network(backbone: str, tensors: Mapping[str, NDArray[np.float32]]) -> FoldedNetwork:
    """The network with these weights, each batch normalisation folded into the convolution before it.

    Folding is done in float64 and rounded once.
    Memory: the weights once more.
    """
    network = _meta_network(backbone)
    state = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    network.load_state_dict(state, strict=False, assign=True)
    network.eval().requires_grad_(False)
    _fold_normalisation(network)
    return FoldedNetwork(
        stem=torch.nn.Sequential(network.conv1, network.relu, network.maxpool),
        layers=(network.layer1, network.layer2, network.layer3, network.layer4),
    )


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
