"""MixUp and sharpened guesses, of images and of vectors. Letters: B rows, C classes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sharpened(shares: Tensor, temperature: float) -> Tensor:
    """Probabilities to the power 1 / temperature, brought to sum 1 again; in logarithms, so that none underflows.

    Shapes: shares (B, C) -> (B, C).

    Source: Berthelot et al. 2019, arXiv:1905.02249, "Sharpening".

    >>> sharpened(torch.tensor([[0.6, 0.4]]), 0.5).round(decimals=4).tolist()
    [[0.692300021648407, 0.3077000081539154]]
    """
    return torch.softmax(shares.clamp_min(1e-30).log() / temperature, dim=1)


def mixing_shares(count: int, alpha: float, random: np.random.Generator) -> NDArray[np.float32]:
    """The share of itself that each row keeps: the larger part of a Beta(alpha, alpha) draw; 1 where alpha is 0.

    Shapes: -> (count,), in [1/2, 1].

    Source: Berthelot et al. 2019, arXiv:1905.02249, "MixUp": lambda' = max(lambda, 1 - lambda).
    """
    if alpha == 0.0:
        return np.ones(count, np.float32)
    drawn = random.beta(alpha, alpha, count)
    return np.maximum(drawn, 1.0 - drawn).astype(np.float32)


def mixed(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Each row of the first with a part of the same row of the second.

    Shapes: (B, ...), (B, ...), shares (B,) -> (B, ...).
    """
    own = shares.reshape(-1, *[1] * (first.ndim - 1))
    return own * first + (1.0 - own) * second
