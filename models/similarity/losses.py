"""Losses and miners of pytorch-metric-learning, and the ranges from which a trial draws their settings.

Only those that draw nothing from torch's global chance: a fit must neither read nor move it.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from models.similarity.library import losses, miners

BatchLoss = Callable[[Tensor, Tensor], Tensor]
"""Embeddings (b, E) and classes (b,) to the batch's loss; unit length is made inside."""


class Loss(StrEnum):
    """What is made small."""

    CONTRASTIVE = "contrastive"
    TRIPLET = "triplet"
    MULTI_SIMILARITY = "multi_similarity"
    NT_XENT = "nt_xent"


class Miner(StrEnum):
    """Which pairs or triplets of a batch count."""

    NONE = "none"
    SEMIHARD = "semihard"
    MULTI_SIMILARITY = "multi_similarity"


_LOSSES: dict[Loss, Callable[..., Any]] = {
    Loss.CONTRASTIVE: losses.ContrastiveLoss,
    Loss.TRIPLET: losses.TripletMarginLoss,
    Loss.MULTI_SIMILARITY: losses.MultiSimilarityLoss,
    Loss.NT_XENT: losses.NTXentLoss,
}
# Setting -> usual value, smallest, largest; margins of pairs and triplets are distances of unit vectors, from 0 to 2.
_RANGES: dict[Loss, dict[str, tuple[float, float, float]]] = {
    Loss.CONTRASTIVE: {"pos_margin": (0.0, 0.0, 0.6), "neg_margin": (1.0, 0.6, 1.4)},
    Loss.TRIPLET: {"margin": (0.1, 0.02, 0.8)},
    Loss.MULTI_SIMILARITY: {"alpha": (2.0, 0.5, 10.0), "beta": (50.0, 5.0, 80.0), "base": (0.5, 0.2, 0.8)},
    Loss.NT_XENT: {"temperature": (0.07, 0.03, 0.5)},
}
_RATES = (3e-3, 1e-4, 1e-2)  # step of the optimiser, drawn on a logarithmic scale


def drawn_settings(loss: Loss, trial: int, generator: torch.Generator) -> dict[str, float]:
    """Settings of one trial, `learning_rate` among them: the usual ones first, then drawn evenly from their ranges."""
    ranges = {**_RANGES[loss], "learning_rate": _RATES}
    shares = torch.rand(len(ranges), generator=generator, dtype=torch.float64).tolist()
    if trial == 0:
        return {name: usual for name, (usual, _, _) in ranges.items()}
    found = {}
    for (name, (_, low, high)), share in zip(ranges.items(), shares, strict=True):
        is_rate = name == "learning_rate"
        found[name] = math.exp(math.log(low) + share * math.log(high / low)) if is_rate else low + share * (high - low)
    return found


def batch_loss(loss: Loss, miner: Miner, settings: dict[str, float]) -> BatchLoss:
    """The loss with these settings, over what the miner keeps of a batch."""
    of_pairs = _LOSSES[loss](**{name: value for name, value in settings.items() if name in _RANGES[loss]})
    mined = _miner(miner, settings)

    def value(embeddings: Tensor, classes: Tensor) -> Tensor:
        found: Tensor = of_pairs(embeddings, classes, None if mined is None else mined(embeddings, classes))
        return found

    return value


def _miner(miner: Miner, settings: dict[str, float]) -> Any:
    if miner is Miner.SEMIHARD:
        return miners.TripletMarginMiner(margin=settings.get("margin", 0.2), type_of_triplets="semihard")
    return miners.MultiSimilarityMiner() if miner is Miner.MULTI_SIMILARITY else None
