"""Answers as probabilities, their loss, and which pair to ask about next.

Letters: A answers, C candidates, M members of the ensemble. A reward is how anomalous an image is.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from models.contract import Pair, Question

CHANCE = 0.1
"""Share of answers that are given by chance, whatever the images are."""
_SHARES = {"left": 1.0, "right": 0.0, "same": 0.5}


def left_shares(pairs: Sequence[Pair]) -> tuple[list[Pair], NDArray[np.float32]]:
    """The answers that say something, and how much of each goes to its left image: 1, 0, or a half for "same".

    Who cannot say has said nothing, and is left out.

    Shapes: A answers -> A' <= A of them, shares (A',).

    Source: Christiano et al. 2017, arXiv:1706.03741, section 2.2.2.
    """
    told = [pair for pair in pairs if pair.answer in _SHARES]
    return told, np.array([_SHARES[pair.answer] for pair in told], np.float32)


def left_stranger(difference: Tensor) -> Tensor:
    """Probability that the left image is said to be more anomalous, from the difference of the two rewards.

    Shapes: any. Units: from 0.05 to 0.95.

    Source: Christiano et al. 2017, arXiv:1706.03741, equation 1, with a tenth of the answers by chance (section 2.2.3).
    """
    return (1.0 - CHANCE) * torch.sigmoid(difference) + CHANCE / 2


def answer_loss(difference: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy of each answer; at most -log 0.05, however sure a reward was of the opposite.

    Shapes: difference left minus right (A, ...), share of the left image likewise -> the same.

    Source: Christiano et al. 2017, arXiv:1706.03741, the loss of section 2.2.3.
    """
    return -(share * left_stranger(difference).log() + (1.0 - share) * left_stranger(-difference).log())


def disagreements(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance over the ensemble of the probability that the first of two images is the more anomalous.

    Shapes: rewards (C, M) as each member gives them -> (C, C), symmetric, 0 on the diagonal.
    Memory: 8 C C, three times.

    Source: Christiano et al. 2017, arXiv:1706.03741, section 2.2.4.
    """
    count, members = rewards.shape
    total, squares = np.zeros((count, count)), np.zeros((count, count))
    for member in range(members):
        shares = expit(rewards[:, None, member] - rewards[None, :, member]) - 0.5
        total += shares
        squares += shares**2
    variances: NDArray[np.float64] = (1.0 - CHANCE) ** 2 * (squares / members - (total / members) ** 2)
    return np.maximum(variances, 0.0)


def most_telling(
    variances: NDArray[np.float64], ids: NDArray[np.int64], asked: Collection[tuple[int, int]], most: int
) -> list[Question]:
    """The pairs of largest variance, largest first, that were not asked yet; no image stands in two of them.

    Which image stands left is decided by the sum of their ids, so that neither side is favoured.

    Shapes: variances (C, C), ids (C,).
    Ties:   the pair whose images come first.
    """
    open_ = np.triu(np.ones(variances.shape, bool), 1)
    place_of = {one: place for place, one in enumerate(ids.tolist())}
    for first, second in asked:
        if first in place_of and second in place_of:
            places = sorted((place_of[first], place_of[second]))
            open_[places[0], places[1]] = False
    left_open = np.where(open_, variances, -1.0)
    found: list[Question] = []
    while len(found) < most:
        one, other = divmod(int(left_open.argmax()), len(ids)) if left_open.size else (0, 0)
        if not left_open.size or left_open[one, other] < 0:
            break
        value = float(left_open[one, other])
        left_open[[one, other], :] = -1.0
        left_open[:, [one, other]] = -1.0
        pair = (int(ids[one]), int(ids[other]))
        left, right = pair if sum(pair) % 2 == 0 else pair[::-1]
        found.append(Question(left, right, value))
    return found
