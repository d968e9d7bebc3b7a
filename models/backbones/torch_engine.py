"""The backbone in torch: the judge of every other engine, what runs where there is no other, and GPUs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbones.engine import POOLED, FeaturePooling, stage_output
from models.backbones.network import folded_network
from models.backbones.quantisation import quantise
from models.errors import EngineUnusable
from models.runtime import use_threads

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}


class TorchEngine:
    """The backbone in torch, on the processor or on a GPU; channels are innermost in memory."""

    def __init__(
        self,
        backbone: str,
        tensors: Mapping[str, NDArray[np.float32]],
        stages: Sequence[int],
        threads: int,
        *,
        device: str = "cpu",
        precision: str = "float32",
        ranges: Mapping[str, float] | None = None,
        pooling: FeaturePooling = "mean",
    ) -> None:
        """With ranges it is the network in 8-bit integers, computed in floating point; `precision` is then int8.

        Raises EngineUnusable: there is no such device here, or it does not compute at that precision.
        """
        if device != "cpu" and not torch.cuda.is_available():
            raise EngineUnusable(f"`device` of torch must be one that is there; got {device}, and there is no GPU.")
        self.name = "torch" if device == "cpu" else "cuda"
        self.precision = precision
        self.threads = threads
        self.runs_at_once = 1 if device == "cpu" else 2  # a GPU computes one batch while the next is handed over
        self.hints = {"device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device)}
        self._device = torch.device(device)
        self._dtype = DTYPES[precision]
        self._stages = tuple(stages)
        self._has_root = pooling == "sqrt_mean"
        network = folded_network(backbone, tensors)
        if ranges is not None:
            quantise(network, ranges)
        try:
            for part in (network.stem, *network.layers):
                part.to(device=self._device, dtype=self._dtype)
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:  # out of memory on the device is one
            raise EngineUnusable(f"`device` of torch must take the weights; {error}") from error
        self._stem = network.stem
        self._layers = network.layers

    def run(self, batch: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        use_threads(self.threads)
        asked = {stage for stage in range(1, 5) if stage_output(stage) in outputs}
        pooled = set(self._stages) if POOLED in outputs else set()
        means: list[torch.Tensor] = []
        found: dict[str, NDArray[np.float32]] = {}
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(self._device)
            features = self._stem(images.to(dtype=self._dtype, memory_format=torch.channels_last))
            for stage in range(1, max(asked | pooled, default=0) + 1):
                features = self._layers[stage - 1](features)
                if stage in pooled:
                    means.append(features.float().mean(dim=(2, 3)))
                if stage in asked:
                    found[stage_output(stage)] = features.permute(0, 2, 3, 1).float().contiguous().cpu().numpy()
            if means:
                found[POOLED] = self._vectors(means).cpu().numpy()
        return found

    def differentiable(self, batch: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor, dict[int, torch.Tensor]]:
        """The pixels, the vectors and the maps of every stage, as tensors that gradients flow through.

        Shapes: batch (B, 3, S, S) -> pixels the same, vectors (B, width), stage -> (B, h, w, C).
        """
        use_threads(self.threads)
        pixels = torch.from_numpy(batch).to(self._device).requires_grad_(True)
        maps: dict[int, torch.Tensor] = {}
        with torch.enable_grad():
            features = self._stem(pixels.to(dtype=self._dtype, memory_format=torch.channels_last))
            for stage, layer in enumerate(self._layers, start=1):
                features = layer(features)
                maps[stage] = features.permute(0, 2, 3, 1).float()
            vectors = self._vectors([maps[stage].mean(dim=(1, 2)) for stage in self._stages])
        return pixels, vectors, maps

    def _vectors(self, means: list[torch.Tensor]) -> torch.Tensor:
        averages = torch.cat(means, dim=1)
        if not self._has_root:
            return averages
        is_lit = averages > 0  # at 0 the root has no slope, and what is silent here has none in the network either
        return torch.where(is_lit, torch.where(is_lit, averages, 1.0).sqrt(), 0.0)


def gpu_precisions() -> tuple[str, ...]:
    """What the first GPU computes natively, the quickest first; empty where there is none."""
    if not torch.cuda.is_available():
        return ()
    return ("bf16", "float32") if torch.cuda.is_bf16_supported(including_emulation=False) else ("float32",)
