"""A density carried along an ordinary differential equation: a velocity field, its exact divergence, and solvers.

Letters: B images, K dimensions, H hidden units.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint  # type: ignore[attr-defined]

from models.training import linear

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
"""Of the adaptive solver while training."""
FINE_TOLERANCE = 1e-9
"""Of the adaptive solver as a judge of fixed steps."""


class Field(Protocol):
    """A velocity and its divergence, the trace of its Jacobian: (t, z (B, K)) -> (B, K), (B,)."""

    def __call__(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]: ...


class VelocityField(nn.Module):
    """A network with two hidden layers of tanh, of position and time, that starts close to standing still."""

    def __init__(self, *, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = linear(width + 1, hidden, generator).double()
        self.second = linear(hidden, hidden, generator).double()
        self.last = linear(hidden, width, generator).double()
        with torch.no_grad():
            self.last.weight.mul_(0.01)
            self.last.bias.zero_()

    def coupling(self) -> Tensor:
        """(H, H): how much of each second unit's slope times each first unit's slope is in the trace."""
        return self.second.weight * (self.first.weight[:, :-1] @ self.last.weight).T

    def at(self, t: Tensor, z: Tensor, coupling: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and exact divergence, the coupling given.

        With slopes s1, s2 of the hidden layers the Jacobian is W3 diag(s2) W2 diag(s1) W1, so its trace is the
        bilinear form s2' (W2 * (W1 W3)') s1: as cheap as the velocity, with no estimate at any width.
        """
        weight, time = self.first.weight[:, :-1], self.first.weight[:, -1]
        first = torch.tanh(nn.functional.linear(z, weight, self.first.bias + t * time))
        second = torch.tanh(self.second(first))
        divergence = (nn.functional.linear(1 - first.square(), coupling) * (1 - second.square())).sum(dim=-1)
        return self.last(second), divergence

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, K) and exact divergence (B,) at time t."""
        return self.at(t, z, self.coupling())


class _Carried(nn.Module):
    """The field as the solver wants it: of a position and what has been gathered of the divergence."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        velocity, divergence = self.field(t, state[0])
        return velocity, divergence


def log_density_adaptive(
    field: nn.Module,
    z: Tensor,
    *,
    adjoint: bool,
    relative: float = RELATIVE_TOLERANCE,
    absolute: float = ABSOLUTE_TOLERANCE,
) -> Tensor:
    """Log density in nats of points at time 0, whose flow ends standard normal at time 1, by an adaptive solver.

    log p(z(0)) = log N(z(1)) + integral over time of the divergence. With `adjoint` the gradient is found by
    solving the adjoint equation backwards, in memory that does not grow with the steps; without, through them.
    The solver's steps are chosen for the batch as a whole: for training and comparison, not for scoring.

    Shapes: z (B, K) -> (B,).

    Source: Chen, Rubanova, Bettencourt, Duvenaud 2018, arXiv:1806.07366: the adjoint method and the
            instantaneous change of variables; Dormand-Prince steps are torchdiffeq's.
    """
    solve = odeint_adjoint if adjoint else odeint
    times = torch.tensor([0.0, 1.0], dtype=z.dtype)
    end, gathered = solve(  # type: ignore[no-untyped-call]
        _Carried(field), (z, torch.zeros(len(z), dtype=z.dtype)), times, rtol=relative, atol=absolute, method="dopri5"
    )
    density: Tensor = log_normal(end[-1]) + gathered[-1]
    return density


def rk4(field: Field, z: Tensor, steps: int, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """Where points are after one unit of time, and the integral of the divergence on their way.

    `steps` equal steps of the classical Runge-Kutta method, the same for every point whatever its mates.

    Shapes: z (B, K) -> (B, K), (B,).
    """
    h = (-1.0 if backwards else 1.0) / steps
    start = 1.0 if backwards else 0.0
    gathered = torch.zeros(len(z), dtype=z.dtype)
    for step in range(steps):
        t = start + step * h
        v1, d1 = field(_time(t, z), z)
        v2, d2 = field(_time(t + h / 2, z), z + h / 2 * v1)
        v3, d3 = field(_time(t + h / 2, z), z + h / 2 * v2)
        v4, d4 = field(_time(t + h, z), z + h * v3)
        z = z + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        gathered = gathered + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return z, gathered


def log_density_fixed(field: Field, z: Tensor, steps: int) -> Tensor:
    """Log density in nats of points at time 0 by `steps` fixed steps; (B, K) -> (B,)."""
    end, gathered = rk4(field, z, steps)
    return log_normal(end) + gathered


def log_normal(z: Tensor) -> Tensor:
    """Log density of the standard normal; (B, K) -> (B,) nats."""
    return -0.5 * (z.square().sum(dim=-1) + z.shape[-1] * math.log(2 * math.pi))


def steps_needed(
    field: nn.Module, z: Tensor, *, tolerance: float, most: int, reached: Callable[[], None]
) -> int | None:
    """The smallest power of two of fixed steps at which every log density is the adaptive one within `tolerance`.

    None when `most` steps do not suffice. `reached` is called before each try.

    Shapes: z (B, K).
    """
    with torch.no_grad():
        wanted = log_density_adaptive(field, z, adjoint=False, relative=FINE_TOLERANCE, absolute=FINE_TOLERANCE)
        steps = 2
        while steps <= most:
            reached()
            if float((log_density_fixed(field, z, steps) - wanted).abs().max()) <= tolerance:
                return steps
            steps *= 2
    return None


def _time(t: float, z: Tensor) -> Tensor:
    return torch.tensor(t, dtype=z.dtype)
