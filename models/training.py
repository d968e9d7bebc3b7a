"""One training loop for every method that learns by gradients: small networks, early stopping, explicit seeds.

Chance comes from a `torch.Generator` alone, so a fit neither reads nor moves torch's global state. The loop
calls `progress` after every step; what that raises ends the training.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.contract import Progress
from models.errors import ParameterInvalid

BeforeStep = Callable[[Sequence[nn.Parameter]], None]
"""Called between the gradients and the optimiser's step, to change gradients in place."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and by what steps a network is trained."""

    epochs: int
    batch: int
    learning_rate: float
    patience: int = 10
    """Epochs without a better held-out loss after which the training stops; nothing stops it without one."""
    optimiser: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.0
    """Of `sgd`."""
    weight_decay: float = 0.0
    """Decoupled from the gradient for `adam`."""
    gradient_norm_max: float | None = None
    """Longer gradients are scaled down to this norm."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What became of a training."""

    epochs: int
    """Epochs trained."""
    best_epoch: int
    """The one whose parameters were kept, from 1; the last without a held-out loss."""
    losses: tuple[float, ...]
    """Mean loss of each epoch."""
    held_out_losses: tuple[float, ...]


def train(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    *,
    rows: int,
    plan: TrainingPlan,
    generator: torch.Generator,
    method: str,
    held_out_loss: Callable[[], Tensor] | None = None,
    sampling_weights: Callable[[], Tensor] | None = None,
    before_step: BeforeStep | None = None,
    progress: Progress | None = None,
) -> TrainingReport:
    """Trains `module` in place and leaves it in eval mode with the best parameters found.

    `loss` gets row numbers (b,) of one batch and returns its mean loss. Every epoch sees each of `rows` once in
    a new order, or draws that many with replacement by `sampling_weights`, asked at the start of the epoch
    while the module is in eval mode. `held_out_loss` is asked after every epoch in eval mode without
    gradients.

    Raises:
        ParameterInvalid: a loss is not finite; the learning rate is too large.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = _optimiser(parameters, plan)
    n_batches = math.ceil(rows / plan.batch)
    best, best_epoch, best_state = math.inf, 0, None
    losses: list[float] = []
    held_out: list[float] = []
    for epoch in range(1, plan.epochs + 1):
        order = _order(module, rows, generator, sampling_weights)
        module.train()
        total = 0.0
        # Batches of nearly equal size: none is so small that its statistics mean nothing.
        for number, chosen in enumerate(torch.tensor_split(order, n_batches), start=1):
            optimiser.zero_grad(set_to_none=True)
            value = loss(chosen)
            _require_finite(value, plan, method)
            torch.autograd.backward(value)
            if before_step is not None:
                before_step(parameters)
            if plan.gradient_norm_max is not None:
                nn.utils.clip_grad_norm_(parameters, plan.gradient_norm_max)
            optimiser.step()
            total += float(value.detach()) * len(chosen)
            if progress is not None:
                progress((epoch - 1) * n_batches + number, plan.epochs * n_batches)
        losses.append(total / rows)
        module.eval()
        if held_out_loss is None:
            best_epoch = epoch
            continue
        with torch.no_grad():
            value = held_out_loss()
        _require_finite(value, plan, method)
        held_out.append(float(value))
        if held_out[-1] < best:
            best, best_epoch, best_state = held_out[-1], epoch, copy.deepcopy(module.state_dict())
        elif epoch - best_epoch >= plan.patience:
            break
    if best_state is not None:
        module.load_state_dict(best_state)
    if progress is not None:
        progress(plan.epochs * n_batches, plan.epochs * n_batches)
    return TrainingReport(len(losses), best_epoch, tuple(losses), tuple(held_out))


def part_of(progress: Progress | None, first: float, last: float) -> Progress:
    """Progress of one part of a longer piece of work, which it takes from share `first` to share `last`."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(round(1000 * (first + (last - first) * done / max(total, 1))), 1000)

    return report


def seeded(seed: int) -> torch.Generator:
    """A generator of its own for a seed; the global one is left alone."""
    return torch.Generator().manual_seed(seed % 2**63)


def linear(width_in: int, width_out: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer with torch's usual initial values, drawn from `generator`."""
    # On the meta device the layer draws no initial values from torch's global state.
    layer: nn.Linear = nn.Linear(width_in, width_out, bias=bias, device="meta").to_empty(device="cpu")
    limit = 1 / math.sqrt(width_in)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-limit, limit, generator=generator)
    return layer


def mlp(
    widths: Sequence[int], generator: torch.Generator, *, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers of these widths with an activation between them, none after the last."""

    def layers() -> Iterator[nn.Module]:
        for place, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
            if place:
                yield activation()
            yield linear(width_in, width_out, generator)

    return nn.Sequential(*layers())


def each_alone(function: Callable[[Tensor], Sequence[Tensor]], rows: Tensor) -> tuple[Tensor, ...]:
    """`function` of every row on its own, (1, D) at a time, its answers one under the other.

    A matrix product may round a row differently for every number of rows beside it; alone, an image gets the same
    bits in any batch.

    Shapes: rows (B, D), B >= 1.
    """
    with torch.no_grad():
        # A row is copied, for a kernel may choose its path by where in memory the row begins.
        answers = [function(row[None].clone()) for row in rows]
    return tuple(torch.cat(parts) for parts in zip(*answers, strict=True))


def _optimiser(parameters: list[nn.Parameter], plan: TrainingPlan) -> torch.optim.Optimizer:
    if plan.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, lr=plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
    return torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay)


def _order(
    module: nn.Module, rows: int, generator: torch.Generator, sampling_weights: Callable[[], Tensor] | None
) -> Tensor:
    if sampling_weights is None:
        return torch.randperm(rows, generator=generator)
    module.eval()
    with torch.no_grad():
        weights = sampling_weights()
    return torch.multinomial(weights, rows, replacement=True, generator=generator)


def _require_finite(value: Tensor, plan: TrainingPlan, method: str) -> None:
    if not bool(torch.isfinite(value)):
        raise ParameterInvalid(
            f"`learning_rate` of method `{method}` must be small enough that the loss stays finite; "
            f"got {plan.learning_rate} and a loss of {float(value.detach())}."
        )
