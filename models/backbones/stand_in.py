"""Untrained weights that are the same everywhere: for trying the service out and for tests, labelled as such.

Drawn from the raw stream of PCG64, which numpy promises never to change (its distributions may change), and
scaled by one correctly rounded multiplication. So the weights depend on no version of torch and no processor.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

EDITION = 1

_HALF = 2**23


def stand_in_weights(
    backbone: str, shapes: Mapping[str, tuple[int, ...]], residual_blocks: int
) -> dict[str, NDArray[np.float32]]:
    """Seeded weights for every named tensor: uniform filters of zero mean, normalisation layers at rest.

    Each filter sums to nearly nothing, so that a flat picture gives flat features and what remains is
    texture. The last normalisation of each residual block is weighted by 1/sqrt(blocks), which keeps the
    activations of a network of any depth within a few times those of its input.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    branch_ends = _branch_ends(shapes)
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        if len(shape) == 4:
            weights[name] = _filters(f"{backbone} {name}", shape)
        elif part in ("running_var", "weight"):
            value = 1.0 / math.sqrt(residual_blocks) if part == "weight" and layer in branch_ends else 1.0
            weights[name] = np.full(shape, value, dtype=np.float32)
        else:
            weights[name] = np.zeros(shape, dtype=np.float32)
    return weights


def _branch_ends(shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    last: dict[str, str] = {}
    for name in shapes:
        layer = name.rpartition(".")[0]
        block, _, leaf = layer.rpartition(".")
        if block.startswith("layer") and leaf.startswith("bn"):
            last[block] = max(last.get(block, ""), layer)
    return frozenset(last.values())


def _filters(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(f"stand-in {EDITION} {key}".encode()).digest()[:16], "big")
    out_channels, fan_in = shape[0], math.prod(shape[1:])
    raw = np.random.PCG64(seed).random_raw(out_channels * fan_in)
    whole = (raw >> np.uint64(40)).astype(np.int64).reshape(out_channels, fan_in) - _HALF
    # Whole numbers: the sum is exact, whatever order the processor adds in.
    whole -= whole.sum(axis=1, keepdims=True) // fan_in
    bound = math.sqrt(6.0 / fan_in)  # He et al. 2015: variance 2 / fan_in
    return (whole * (bound / _HALF)).astype(np.float32).reshape(shape)
