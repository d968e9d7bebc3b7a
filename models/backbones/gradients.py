"""How a score changes with the pixels of an image: a method's own gradient, carried back through the network.

Whatever engine serves, this is computed by torch in float32; the vectors of the two differ by rounding only.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbones.engine import BATCH_MAX
from models.backbones.torch_engine import TorchEngine
from models.contract import Slopes

Read = tuple[NDArray[np.float32], dict[int, NDArray[np.float32]]]
"""Vectors (B, D), and stage -> maps (B, h, w, C)."""


def pixel_gradients(
    engine: TorchEngine, pixels: NDArray[np.float32], slopes: Callable[[NDArray[np.float32], Read], Slopes]
) -> NDArray[np.float32]:
    """The gradient of each image's score with respect to its pixels.

    `slopes` gets pixels with what the network made of them, and says how their scores change with these.

    Shapes: pixels (B, 3, S, S) -> the same.
    Memory: the activations of 16 images.
    """
    found = np.empty_like(pixels)
    for start in range(0, len(pixels), BATCH_MAX):
        batch = np.ascontiguousarray(pixels[start : start + BATCH_MAX])
        leaves, vectors, maps = engine.differentiable(batch)
        read = {stage: one.detach().cpu().numpy() for stage, one in maps.items()}
        told = slopes(batch, (vectors.detach().cpu().numpy(), read))
        outputs: list[torch.Tensor] = []
        weights: list[torch.Tensor] = []
        for output, slope in [(vectors, told.vectors), *((maps[stage], one) for stage, one in told.maps.items())]:
            if slope is not None:
                outputs.append(output)
                weights.append(torch.from_numpy(np.asarray(slope, np.float32)).to(output.device))
        through = np.zeros_like(batch)
        if outputs:
            (gradient,) = torch.autograd.grad(outputs, leaves, weights)
            through = gradient.cpu().numpy()
        found[start : start + BATCH_MAX] = through if told.pixels is None else through + told.pixels
    return found
