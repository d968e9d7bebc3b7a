"""A backbone in 8-bit integers: one function of the weights and of a few ranges, whatever computes it.

What a residual block takes in, and what its second and third convolution take in, is rounded to 256 levels from nought
to a range of its own; the weights of each filter to 127 levels of a scale of its own. Everything else is floating
point: sums, biases, the first convolution, and what leaves the last block.

Engines agree on it to the rounding of floating point, because two things are left out that usual quantisers do. Weights
have 7 bits: processors without instructions for 8-bit networks add two products in 16 bits, which 2 x 255 x 63 never
overflows and 2 x 255 x 127 would. And the branches of a block are not rounded before they are added: engines differ in
when they do it, and it costs neighbours. Another processor, a GPU or torch therefore scores what one of them stored.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbones.network import FoldedNetwork

EDITION = 1  # of the function: another one gives other vectors
LEVELS = 256
WEIGHT_MAX = 63
_LATER = ("conv2", "conv3")


def rounded_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers from -63 to 63, and the scale of each filter that they are multiples of.

    Shapes: (out, in, h, w) -> the same, (out, 1, 1, 1).
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(WEIGHT_MAX), np.float32(1)).astype(np.float32)
    return np.rint(weight / scales).clip(-WEIGHT_MAX, WEIGHT_MAX).astype(np.int8), scales


def range_names(tensors: Iterable[str]) -> list[str]:
    """Where activations are rounded: the blocks and later convolutions of the network with tensors of these names."""
    found = (one.removesuffix(".weight").rpartition(".") for one in tensors if one.startswith("layer"))
    return [block if part == "conv1" else f"{block}.{part}" for block, _, part in found if part in ("conv1", *_LATER)]


def later_convolutions(block: Any) -> list[str]:
    """Those of a block that do not take in what the block does: conv2, and conv3 of a bottleneck."""
    return [name for name in _LATER if hasattr(block, name)]


def has_ranges(names: Iterable[str], ranges: Mapping[str, float]) -> bool:
    """Whether there is one range for each of these places and no other, finite and above nought."""
    return set(ranges) == set(names) and all(0 < one < math.inf for one in ranges.values())


def ranges_sha256(ranges: Mapping[str, float]) -> str:
    """SHA-256 in hex: with the same weights and an equal one, two engines compute the same function."""
    facts = {"edition": EDITION, "ranges": {name: float(np.float32(one)) for name, one in ranges.items()}}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def quantise(network: FoldedNetwork, ranges: Mapping[str, float]) -> None:
    """Make torch compute the function, in floating point: its weights and what they meet are rounded, in place."""
    for name, block in network.blocks():
        _round_what_enters(block, ranges[name])
        for part in later_convolutions(block):
            _round_what_enters(getattr(block, part), ranges[f"{name}.{part}"])
        for module in block.modules():
            if isinstance(module, torch.nn.Conv2d):
                levels, scales = rounded_weights(module.weight.detach().contiguous().numpy())
                module.weight = torch.nn.Parameter(torch.from_numpy(levels * scales), requires_grad=False)


def _round_what_enters(module: torch.nn.Module, top: float) -> None:
    step = top / (LEVELS - 1)

    def rounded(_: torch.nn.Module, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(features[0], step, 0, 0, LEVELS - 1)

    module.register_forward_pre_hook(rounded)
