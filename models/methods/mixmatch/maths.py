"""Sharpening, MixUp and the two losses, as pure functions.

Letters: B images, V versions of each, D features, C classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def sharpened(shares: Tensor, temperature: float) -> Tensor:
    """Probabilities to the power 1 / temperature, brought to sum 1 again; in logarithms, so that none underflows.

    Shapes: shares (B, C) -> (B, C).

    Source: Berthelot et al. 2019, arXiv:1905.02249, "Sharpening".

    >>> sharpened(torch.tensor([[0.6, 0.4]]), 0.5).round(decimals=4).tolist()
    [[0.692300021648407, 0.3077000081539154]]
    """
    return torch.softmax(shares.clamp_min(1e-30).log() / temperature, dim=1)


def guessed_labels(net: nn.Module, versions: Tensor, temperature: float) -> Tensor:
    """What the network says of an image, averaged over its versions and sharpened; no gradient flows through it.

    Shapes: versions (B, K, D) -> (B, C).

    Source: Berthelot et al. 2019, arXiv:1905.02249, "Label guessing".
    """
    with torch.no_grad():
        shares = torch.softmax(net(versions.flatten(0, 1)), dim=1)
        return sharpened(shares.reshape(*versions.shape[:2], -1).mean(dim=1), temperature)


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

    Shapes: (B, n), (B, n), shares (B,) -> (B, n).
    """
    return shares[:, None] * first + (1.0 - shares[:, None]) * second


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of minus the targets' log-likelihood, in nats; the loss of labelled rows."""
    return -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows and classes of the squared difference of probabilities; the loss of unlabelled rows."""
    return (torch.softmax(logits, dim=1) - targets).square().mean()
