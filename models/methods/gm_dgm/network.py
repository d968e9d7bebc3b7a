"""The generative model, its two encoders, and the lower bound that trains them.

Letters: B images, D features, H hidden units, Z latents, K kinds, R noises.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.training import linear, mlp

LOG_VARIANCE = (-12.0, 12.0)  # a Gaussian that shrinks on one image would end the training
_LOG_2_PI = math.log(2 * math.pi)


def joint_bounds(
    rows: Tensor,
    posterior: tuple[Tensor, Tensor],
    prior: tuple[Tensor, Tensor],
    decode: Callable[[Tensor], Tensor],
    log_variance: Tensor,
    noise: Tensor,
) -> Tensor:
    """Lower bound of log p(x, y) for every kind y, all kinds as likely as one another.

    log p(y) + mean over noises of log p(x | z) - KL(q(z | x, y) to p(z | y)), with z = mean + deviation * noise.

    Shapes: rows (B, D), posterior means and log variances (B, K, Z) each, prior ones (K, Z) each, `decode`
            (R, B, K, Z) -> (R, B, K, D), log_variance (), noise (R, B, K, Z) -> (B, K) nats.

    Source: Willetts, Roberts, Holmes 2019, arXiv:1901.08560, the bound for labelled data.
    """
    mean, log_spread = posterior
    prior_mean, prior_log_spread = prior
    decoded = decode(mean + (log_spread / 2).exp() * noise)
    squares = (rows[:, None, :] - decoded).square().sum(dim=-1) / log_variance.exp()
    likelihood = -0.5 * (squares + rows.shape[-1] * (log_variance + _LOG_2_PI)).mean(dim=0)
    ratio = (log_spread - prior_log_spread).exp()
    away = (mean - prior_mean).square() / prior_log_spread.exp()
    divergence = 0.5 * (ratio + away - 1 + prior_log_spread - log_spread).sum(dim=-1)
    return likelihood - divergence - math.log(mean.shape[1])


def bound(joint: Tensor, log_shares: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Lower bound of log p(x, y is one of the allowed kinds), and the log share that q(y | x) gives those kinds.

    sum over allowed y of q(y) (joint(y) - log q(y)), q being q(y | x) made to sum to 1 over them. With one kind
    allowed this is the bound of a labelled image, with all of them that of an unlabelled one.

    Shapes: joint, log_shares, allowed (B, K), at least one allowed in each row -> (B,), (B,) nats.

    Source: Willetts, Roberts, Holmes 2019, arXiv:1901.08560, the bounds for labelled and unlabelled data.
    """
    inside = log_shares.masked_fill(~allowed, -torch.inf)
    total = torch.logsumexp(inside, dim=-1)
    log_q = inside - total[:, None]
    # A kind that is not allowed has share 0; its log must not make 0 times infinity.
    return (log_q.exp() * (joint - log_q.masked_fill(~allowed, 0.0))).sum(dim=-1), total


class GenerativeModel(nn.Module):
    """p(y) p(z | y) p(x | z) with q(y | x) and q(z | x, y).

    With `mixture` off z is one standard Gaussian whatever the kind and the decoder is told the kind instead:
    model M2 of Kingma et al. 2014, with the same networks.
    """

    def __init__(
        self, *, width: int, hidden: int, latents: int, kinds: int, mixture: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.mixture = mixture
        self.classifier = mlp([width, hidden, kinds], generator)
        self.seen = linear(width, hidden, generator)
        self.told = nn.Parameter(torch.randn(kinds, hidden, generator=generator))
        self.latents = mlp([hidden, hidden, 2 * latents], generator)
        self.decoder = mlp([latents + kinds, hidden, width], generator)
        self.prior_mean = nn.Parameter(torch.randn(kinds, latents, generator=generator), requires_grad=mixture)
        self.prior_log_variance = nn.Parameter(torch.zeros(kinds, latents), requires_grad=mixture)
        self.log_variance = nn.Parameter(torch.zeros(()))
        if not mixture:
            with torch.no_grad():
                self.prior_mean.zero_()

    def standardised(self, rows: Tensor) -> Tensor:
        """(B, D) -> (B, D) about the mean, in units of the average deviation."""
        return (rows - self.mean) / self.scale

    def log_shares(self, rows: Tensor) -> Tensor:
        """log q(y | x); (B, D) standardised -> (B, K)."""
        return torch.log_softmax(self.classifier(rows), dim=-1)

    def posterior(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x, y) for every kind; (B, D) standardised -> twice (B, K, Z)."""
        found = self.latents(torch.relu(self.seen(rows)[:, None, :] + self.told))
        mean, log_variance = found.chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, latents: Tensor) -> Tensor:
        """Mean of p(x | z), or of p(x | y, z) without the mixture; (..., K, Z) -> (..., K, D)."""
        kinds = latents.shape[-2]
        told = torch.eye(kinds, dtype=latents.dtype) * (0.0 if self.mixture else 1.0)
        decoded: Tensor = self.decoder(torch.cat([latents, told.expand(*latents.shape[:-1], kinds)], dim=-1))
        return decoded

    def joint(self, rows: Tensor, noise: Tensor) -> Tensor:
        """Lower bounds of log p(x, y); (B, D) standardised, noise (R, B, K, Z) -> (B, K)."""
        prior = (self.prior_mean, self.prior_log_variance.clamp(*LOG_VARIANCE))
        log_variance = self.log_variance.clamp(*LOG_VARIANCE)
        return joint_bounds(rows, self.posterior(rows), prior, self.decode, log_variance, noise)


def loss(net: GenerativeModel, rows: Tensor, allowed: Tensor, label_weights: Tensor, noise: Tensor) -> Tensor:
    """Minus the mean bound, with the weighted cross-entropy of q(y | x) for what is known of the kinds; scalar.

    Shapes: rows (B, D) standardised, allowed (B, K), label_weights (B,), noise (R, B, K, Z).

    Source: Willetts, Roberts, Holmes 2019, arXiv:1901.08560, the objective with the classification term.
    """
    found, known = bound(net.joint(rows, noise), net.log_shares(rows), allowed)
    return -(found + label_weights * known).mean()
