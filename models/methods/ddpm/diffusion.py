"""The process of the paper: noise added over a schedule, and the samplers that take it away again.

Letters: B images, T timesteps; t runs from 1 (hardly noisy) to T (noise alone), 0 is the data itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""Noisy rows (B, ...) and their timesteps (B,) -> the noise in them (B, ...)."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much noise each step adds."""

    betas: Tensor
    """(T + 1,) float64, variance of the noise added at step t; 0 at t = 0, which is no step."""
    kept: Tensor
    """(T + 1,) float64, share of the data's variance left after t steps: the product of 1 - beta; 1 at t = 0."""

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas) - 1


def linear_schedule(timesteps: int) -> Schedule:
    """The paper's schedule: variances from 1e-4 to 0.02 over 1,000 steps, and as much in all over fewer.

    Units:  `timesteps` from 50.

    Source: Ho, Jain, Abbeel 2020, arXiv:2006.11239, section 4.
    """
    steps = torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64) * (1000 / timesteps)
    betas = torch.cat([torch.zeros(1, dtype=torch.float64), steps])
    return Schedule(betas, torch.cumprod(1 - betas, dim=0))


def noised(rows: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """The rows after t steps at once: sqrt(kept) x + sqrt(1 - kept) noise.

    Shapes: rows (B, ...), t (B,), noise (B, ...) -> (B, ...).

    Source: Ho, Jain, Abbeel 2020, arXiv:2006.11239, equation 4.
    """
    kept = per_row(schedule.kept, t, rows)
    return kept.sqrt() * rows + (1 - kept).sqrt() * noise


def ancestral_step(noisy: Tensor, t: int, predicted: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """One draw of step t - 1 from step t, with variance beta_t.

    Shapes: noisy, predicted, noise (B, ...) -> (B, ...).

    Source: Ho, Jain, Abbeel 2020, arXiv:2006.11239, algorithm 2.
    """
    beta, kept = float(schedule.betas[t]), float(schedule.kept[t])
    mean: Tensor = (noisy - beta / math.sqrt(1 - kept) * predicted) / math.sqrt(1 - beta)
    return mean if t == 1 else mean + math.sqrt(beta) * noise


def ddim_step(noisy: Tensor, t: int, to: int, predicted: Tensor, schedule: Schedule) -> Tensor:
    """Step `to` from step t > `to`, with nothing drawn.

    Shapes: noisy, predicted (B, ...) -> (B, ...).

    Source: Song, Meng, Ermon 2020, arXiv:2010.02502, the deterministic case.
    """
    here, there = float(schedule.kept[t]), float(schedule.kept[to])
    clean: Tensor = (noisy - math.sqrt(1 - here) * predicted) / math.sqrt(here)
    return math.sqrt(there) * clean + math.sqrt(1 - there) * predicted


def ancestral(noisy: Tensor, start: int, predict: Predict, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """Data drawn from rows at timestep `start`, one step after the other.

    Shapes: noisy (B, ...) -> (B, ...).
    """
    for t in range(start, 0, -1):
        noise = torch.randn(noisy.shape, generator=generator, dtype=noisy.dtype)
        noisy = ancestral_step(noisy, t, predict(noisy, _all(t, noisy)), noise, schedule)
    return noisy


def ddim(noisy: Tensor, path: Sequence[int], predict: Predict, schedule: Schedule) -> Tensor:
    """Data from rows at timestep path[0], by way of the others; the same rows always give the same data.

    Shapes: noisy (B, ...), path falling and ending in 0 -> (B, ...).
    """
    for t, to in pairwise(path):
        noisy = ddim_step(noisy, t, to, predict(noisy, _all(t, noisy)), schedule)
    return noisy


def per_row(values: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    """values[t] shaped to multiply rows: (B, 1, ...) in their type."""
    return values[t].to(rows.dtype).reshape(-1, *[1] * (rows.dim() - 1))


def _all(t: int, rows: Tensor) -> Tensor:
    return torch.full((len(rows),), t)
