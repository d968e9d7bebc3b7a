"""What predicts the noise: the exact answer for Gaussian data, and a network that learns what is not Gaussian.

Letters: B images, D features or pixels, H hidden units.
"""

import math

import torch
from torch import Tensor, nn

from models.methods.ddpm.diffusion import Schedule, per_row
from models.training import linear, mlp

TIME_FEATURES = 32
BLOCKS = 2
GROUPS = 4  # of channels that are normalised together


class NoisePredictor(nn.Module):
    """Noise in rows of which timestep and schedule are known.

    Were the data Gaussian with variances v, the expected noise would be sqrt(1 - kept) x / (kept v + 1 - kept). The
    network is added to that and begins at zero. It sees rows scaled to variance 1.
    """

    def __init__(self, correction: nn.Module, variances: Tensor, schedule: Schedule) -> None:
        super().__init__()
        self.variances: Tensor
        self.register_buffer("variances", variances)
        self.correction = correction
        self._schedule = schedule

    def forward(self, noisy: Tensor, t: Tensor) -> Tensor:
        """(B, ...), (B,) -> (B, ...)"""
        kept = per_row(self._schedule.kept, t, noisy)
        total = kept * self.variances + 1 - kept
        scaled = noisy / total.sqrt()
        learnt: Tensor = self.correction(scaled, time_features(t / self._schedule.timesteps, noisy.dtype))
        return ((1 - kept) / total).sqrt() * scaled + (kept * self.variances / total).sqrt() * learnt


def time_features(share: Tensor, dtype: torch.dtype) -> Tensor:
    """Sines and cosines of a timestep at rising frequencies; (B,) of [0, 1] -> (B, 32)."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), TIME_FEATURES // 2, dtype=torch.float64))
    angles = share.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)


class VectorCorrection(nn.Module):
    """Residual blocks on vectors, each told the time."""

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = linear(width, hidden, generator)
        self.blocks = nn.ModuleList(mlp([hidden, hidden, hidden], generator, activation=nn.SiLU) for _ in range(BLOCKS))
        self.times = nn.ModuleList(linear(TIME_FEATURES, hidden, generator) for _ in range(BLOCKS))
        self.last = _zeroed(linear(hidden, width, generator))

    def forward(self, rows: Tensor, time: Tensor) -> Tensor:
        """(B, D), (B, 32) -> (B, D)"""
        found = self.first(rows)
        for block, of_time in zip(self.blocks, self.times, strict=True):
            found = found + block(nn.functional.silu(found + of_time(time)))
        answer: Tensor = self.last(nn.functional.silu(found))
        return answer


class PixelCorrection(nn.Module):
    """A small U-Net: down to a quarter of the side and up again, what was seen on the way down handed across."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        wide = 2 * channels
        self.first = _conv(3, channels, generator)
        self.down = nn.ModuleList(
            [
                _Block(channels, channels, generator),
                _Block(channels, wide, generator),
                _Block(wide, wide, generator),
            ]
        )
        self.up = nn.ModuleList([_Block(2 * wide, wide, generator), _Block(wide + channels, channels, generator)])
        self.last = _zeroed(_conv(channels, 3, generator))

    def forward(self, rows: Tensor, time: Tensor) -> Tensor:
        """(B, 3, H, W), (B, 32) -> (B, 3, H, W), H and W divisible by 4"""
        whole = self.down[0](self.first(rows), time)
        half = self.down[1](nn.functional.avg_pool2d(whole, 2), time)
        found = self.down[2](nn.functional.avg_pool2d(half, 2), time)
        for block, seen in zip(self.up, (half, whole), strict=True):
            found = block(torch.cat([nn.functional.interpolate(found, scale_factor=2.0), seen], dim=1), time)
        answer: Tensor = self.last(nn.functional.silu(found))
        return answer


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(GROUPS, channels_in), nn.GroupNorm(GROUPS, channels_out)])
        self.convs = nn.ModuleList(
            [_conv(channels_in, channels_out, generator), _conv(channels_out, channels_out, generator)]
        )
        self.time = linear(TIME_FEATURES, channels_out, generator)
        self.across = _conv(channels_in, channels_out, generator, side=1)

    def forward(self, rows: Tensor, time: Tensor) -> Tensor:
        found = self.convs[0](nn.functional.silu(self.norms[0](rows)))
        found = found + self.time(time)[:, :, None, None]
        answer: Tensor = self.convs[1](nn.functional.silu(self.norms[1](found))) + self.across(rows)
        return answer


def _conv(channels_in: int, channels_out: int, generator: torch.Generator, side: int = 3) -> nn.Conv2d:
    # On the meta device the layer draws no initial values from torch's global state.
    layer = nn.Conv2d(channels_in, channels_out, side, padding=side // 2, device="meta").to_empty(device="cpu")
    limit = 1 / math.sqrt(channels_in * side * side)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-limit, limit, generator=generator)
    return layer


def _zeroed(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer
