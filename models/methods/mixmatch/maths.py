"""Guessed labels and the two losses, as pure functions.

Letters: B images, V versions of each, D features, C classes.
"""

import torch
from torch import Tensor, nn

from models.mixing import sharpened


def guessed_labels(net: nn.Module, versions: Tensor, temperature: float) -> Tensor:
    """What the network says of an image, averaged over its versions and sharpened; no gradient flows through it.

    Shapes: versions (B, K, D) -> (B, C).

    Source: Berthelot et al. 2019, arXiv:1905.02249, "Label guessing".
    """
    with torch.no_grad():
        shares = torch.softmax(net(versions.flatten(0, 1)), dim=1)
        return sharpened(shares.reshape(*versions.shape[:2], -1).mean(dim=1), temperature)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of minus the targets' log-likelihood, in nats; the loss of labelled rows."""
    return -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows and classes of the squared difference of probabilities; the loss of unlabelled rows."""
    return (torch.softmax(logits, dim=1) - targets).square().mean()
