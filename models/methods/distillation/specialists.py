"""Specialists: who knows a few easily confused classes well, and all others as one, the dustbin.

Letters: K classes, S of them in a specialist's group, N predictions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

STEPS = 30


def confusable_groups(predictions: NDArray[np.float64], groups: int, *, seed: int) -> list[list[int]]:
    """Classes that are often predicted together: clusters of the columns of the predictions' covariance.

    Shapes: (N, K) -> at most `groups` lists of two classes or more, each class in one at most, by lowest class.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 5 (assigning classes to specialists).
    """
    covariance = np.cov(predictions, rowvar=False)
    distinct = len(np.unique(covariance, axis=1).T)
    clustering: Any = KMeans(min(groups, distinct), n_init=10, random_state=seed % 2**32)  # type: ignore[no-untyped-call]
    chosen = clustering.fit_predict(covariance.T)
    found = [np.flatnonzero(chosen == number).tolist() for number in np.unique(chosen)]
    return sorted(one for one in found if len(one) > 1)


def with_dustbin(probabilities: Tensor, group: Sequence[int]) -> Tensor:
    """Probabilities of a group's classes, and last that of all others together.

    Shapes: (..., K) -> (..., S + 1).
    """
    inside = probabilities[..., list(group)]
    return torch.cat([inside, (1.0 - inside.sum(dim=-1, keepdim=True)).clamp_min(0.0)], dim=-1)


def combined(general: Tensor, special: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> Tensor:
    """The probabilities q that minimise KL(general, q) + the sum over specialists of KL(special, q with its dustbin).

    Each step splits every specialist's dustbin among the classes in it as q has them now and takes the average; no step
    raises the sum.

    Shapes: general (..., K), one (..., S + 1) per group -> (..., K), sums 1.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 5 (inference with ensembles of specialists), which
            descends the gradient instead.
    """
    found = general
    for _ in range(STEPS if len(special) else 0):
        total = general
        for told, group in zip(special, groups, strict=True):
            is_outside = torch.ones(general.shape[-1], dtype=torch.bool)
            is_outside[list(group)] = False
            outside = found * is_outside
            share = told[..., -1:] / outside.sum(dim=-1, keepdim=True).clamp_min(1e-30)
            spread = (outside * share).index_copy(-1, torch.tensor(list(group)), told[..., :-1])
            total = total + spread
        found = total / total.sum(dim=-1, keepdim=True)
    return found
