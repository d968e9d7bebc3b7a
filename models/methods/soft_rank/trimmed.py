"""Principal components by soft least trimmed squares: the worst part of a bank has little say, or none.

Letters: N images, D features, K components.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import Progress
from models.methods.soft_rank.isotonic import Regularisation
from models.methods.soft_rank.maths import soft_sort
from models.principal_directions import Directions, principal_directions


@dataclass(frozen=True, slots=True)
class TrimmedComponents:
    """Components, and what each image counted for when they were found."""

    directions: Directions
    weights: NDArray[np.float64]
    """(N,) from 0, ignored, to 1."""
    objective: float
    """Mean soft-sorted loss of the part that is not trimmed, in units of the scale."""
    steps: int


def trimmed_loss(
    losses: NDArray[np.float64], trimmed: int, strength: float, regularisation: Regularisation
) -> tuple[float, NDArray[np.float64]]:
    """Mean of the soft-sorted losses without the `trimmed` largest, and how much of each loss is in it.

    A small strength gives least trimmed squares, a large one least squares.

    Shapes: losses (N,) -> scalar, weights (N,) from 0 to 1 (entropic: at least 0) with sum N - trimmed.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, arXiv:2002.08871, soft least trimmed squares.

    >>> mean, weights = trimmed_loss(np.array([1.0, 9.0, 2.0]), 1, 1e-3, Regularisation.QUADRATIC)
    >>> mean, weights.tolist()
    (1.5, [1.0, 0.0, 1.0])
    """
    values = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    total = soft_sort(values, strength, regularisation)[trimmed:].sum()
    (weights,) = torch.autograd.grad(total, values)
    return float(total.detach()) / (losses.size - trimmed), weights.numpy()


def trimmed_components(
    rows: NDArray[np.floating],
    components: int,
    *,
    trimmed_share: float,
    softness: float,
    regularisation: Regularisation,
    steps_max: int,
    progress: Progress,
) -> TrimmedComponents:
    """Components that fit all but the worst images.

    The loss of an image is the squared length of what the components leave of it. Each step weighs the images by
    the gradient of the trimmed loss and solves the weighted problem exactly; it is kept only while the trimmed
    loss falls. The start is the median, with components of the directions alone, on which distance has no say.

    Shapes: rows (N, D).
    """
    n = len(rows)
    trimmed = min(round(trimmed_share * n), n - 2)
    middle = np.median(rows.astype(np.float64), axis=0)
    lengths = np.sqrt(np.square(rows - middle).sum(axis=1))
    outward = (rows - middle) / np.where(lengths > 0, lengths, 1.0)[:, None]
    start = principal_directions(outward, components)
    best = Directions(middle, start.components, start.variances)
    losses = _losses(rows, best)
    # Ranks run to N and losses are in any unit: relative to both, one softness means one thing.
    scale = max(float(np.median(losses)), np.finfo(np.float64).tiny)
    strength = softness * n
    objective, weights = trimmed_loss(losses / scale, trimmed, strength, regularisation)
    steps = 0
    for step in range(1, steps_max + 1):
        progress(step, steps_max)
        found = principal_directions(rows, components, np.clip(weights, 0.0, 1.0))
        tried, tried_weights = trimmed_loss(_losses(rows, found) / scale, trimmed, strength, regularisation)
        if not tried < objective * (1 - 1e-9):
            break
        is_last = tried > objective * (1 - 1e-5)
        best, objective, weights, steps = found, tried, tried_weights, step
        if is_last:
            break
    return TrimmedComponents(best, weights, objective, steps)


def _losses(rows: NDArray[np.floating], directions: Directions) -> NDArray[np.float64]:
    centred = rows - directions.mean
    left = centred - (centred @ directions.components.T) @ directions.components
    losses: NDArray[np.float64] = np.square(left).sum(axis=1)
    return losses
