"""The ensemble of reward models, trained side by side on bootstraps of the answers.

Letters: B images, F features, H hidden units, M members, A answers.
"""

import math

import torch
from torch import Tensor, nn

from models.contract import Progress
from models.methods.preferences.maths import answer_loss
from models.training import TrainingPlan, train

BATCH = 64


class Rewards(nn.Module):
    """M small networks that share nothing, evaluated together; linear ones without hidden units."""

    def __init__(self, features: int, hidden: int, members: int, generator: torch.Generator) -> None:
        super().__init__()

        def drawn(*shape: int, inputs: int) -> nn.Parameter:
            limit = 1 / math.sqrt(inputs)
            return nn.Parameter(torch.empty(shape).uniform_(-limit, limit, generator=generator))

        width = hidden or features
        self.inner = drawn(members, features, hidden, inputs=features) if hidden else None
        self.inner_bias = drawn(members, 1, hidden, inputs=features) if hidden else None
        self.outer = drawn(members, width, 1, inputs=width)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, F) -> (B, M); no constant, for answers only tell differences."""
        inside = rows.expand(len(self.outer), *rows.shape)
        if self.inner is not None and self.inner_bias is not None:
            inside = torch.tanh(inside @ self.inner + self.inner_bias)
        rewards: Tensor = (inside @ self.outer)[..., 0].T
        return rewards


def bootstraps(answers: int, members: int, generator: torch.Generator) -> Tensor:
    """How often each answer counts for each member: as many draws with replacement as there are answers, (A, M)."""
    drawn = torch.randint(answers, (members, answers), generator=generator)
    counts = torch.zeros((members, answers)).scatter_add_(1, drawn, torch.ones((members, answers)))
    return counts.T.contiguous()


def train_rewards(
    net: Rewards,
    left: Tensor,
    right: Tensor,
    shares: Tensor,
    *,
    plan: TrainingPlan,
    generator: torch.Generator,
    method: str,
    progress: Progress | None,
) -> None:
    """Train every member on its own bootstrap.

    Shapes: left and right images of the answers (A, F), shares (A,).

    Source: Christiano et al. 2017, arXiv:1706.03741, section 2.2.3.
    """
    counts = bootstraps(len(shares), net.outer.shape[0], generator)

    def losses(chosen: Tensor) -> Tensor:
        rewards = net(torch.cat([left[chosen], right[chosen]]))
        difference = rewards[: len(chosen)] - rewards[len(chosen) :]
        return answer_loss(difference, shares[chosen, None].expand_as(difference))

    train(
        net,
        lambda chosen: (losses(chosen) * counts[chosen]).mean(),
        rows=len(shares),
        plan=plan,
        generator=generator,
        method=method,
        progress=progress,
    )
