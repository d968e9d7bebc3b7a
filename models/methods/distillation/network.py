"""The student: a few convolutions on small pixels, asked for classes on the teacher's grid.

Letters: B images, S side in pixels, h w cells, W channels, K classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Student(nn.Module):
    """Generalist logits for every cell, and those of specialists, all from one trunk."""

    def __init__(
        self,
        channels: int,
        classes: int,
        grid: tuple[int, int],
        groups: Sequence[Sequence[int]],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.grid = grid
        wide = 2 * channels
        self.trunk = nn.Sequential(
            _conv(3, channels, generator, stride=2),
            _PlaceNorm(channels),
            nn.ReLU(),
            _conv(channels, wide, generator, stride=2),
            _PlaceNorm(wide),
            nn.ReLU(),
            _conv(wide, wide, generator),
            _PlaceNorm(wide),
            nn.ReLU(),
        )
        self.general = _conv(wide, classes, generator, side=1)
        self.special = nn.ModuleList(_conv(wide, len(group) + 1, generator, side=1) for group in groups)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, W, h, w)"""
        found: Tensor = nn.functional.adaptive_avg_pool2d(self.trunk(pixels), self.grid)
        return found

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> logits (B, h, w, K), and for each specialist (B, h, w, its classes + 1)."""
        features = self.features(pixels)
        return _last(self.general(features)), [_last(head(features)) for head in self.special]


class _PlaceNorm(nn.LayerNorm):
    """Channels of each place by themselves: a norm over the image would let a defect change every place."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def shrunk(pixels: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, S, S), every pixel counted once."""
    return nn.functional.adaptive_avg_pool2d(pixels, (side, side))


def _last(logits: Tensor) -> Tensor:
    return logits.permute(0, 2, 3, 1)


def _conv(
    channels_in: int, channels_out: int, generator: torch.Generator, *, side: int = 3, stride: int = 1
) -> nn.Conv2d:
    # On the meta device the layer draws no initial values from torch's global state.
    layer = nn.Conv2d(channels_in, channels_out, side, stride, padding=side // 2, device="meta").to_empty(device="cpu")
    limit = 1 / math.sqrt(channels_in * side * side)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-limit, limit, generator=generator)
    return layer
