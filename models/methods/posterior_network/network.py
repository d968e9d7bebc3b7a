"""The network: an encoder to a small latent space, and a density of its own for every class there.

Letters: B images, D features, Z latent width, K classes, L layers of a flow.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.training import mlp

EXPONENT_MAX = 60.0
"""Evidence above e^60 is cut: digamma of it is its logarithm, and float64 still holds the sum over classes."""


class RadialFlows(nn.Module):
    """One normalising flow of radial layers per class, evaluated side by side.

    A layer moves z along the ray from its centre, z + b (z - c) / (a + |z - c|), with a > 0 and b > -a, which
    makes it one to one. The standard normal of what the layers make of z, times their Jacobian, is a density.

    Source: Rezende, Mohamed 2015, arXiv:1505.05770, radial flows; used here from data to noise, as in
            Charpentier, Zügner, Günnemann 2020, arXiv:2006.09239.
    """

    def __init__(self, classes: int, width: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        limit = 1 / math.sqrt(width)

        def uniform(*shape: int) -> nn.Parameter:
            drawn = torch.rand(*shape, generator=generator, dtype=torch.float64)
            return nn.Parameter((2 * drawn - 1) * limit)

        self.centre = uniform(layers, classes, width)
        self.raw_a = uniform(layers, classes)
        self.raw_b = uniform(layers, classes)

    def log_densities(self, latents: Tensor) -> Tensor:
        """Log density of each latent under each class's flow; (B, Z) -> (B, K)."""
        width = latents.shape[-1]
        z = latents[:, None, :].expand(-1, self.centre.shape[1], -1)
        log_jacobian = torch.zeros(z.shape[:2], dtype=z.dtype)
        for centre, raw_a, raw_b in zip(self.centre, self.raw_a, self.raw_b, strict=True):
            a = nn.functional.softplus(raw_a)
            b = nn.functional.softplus(raw_b) - a
            away = z - centre
            # The square root has no slope at 0; the smallest normal number keeps it finite.
            distance = (away.square().sum(dim=-1) + 1e-30).sqrt()
            h = 1 / (a + distance)
            z = z + (b * h)[..., None] * away
            log_jacobian = log_jacobian + (width - 1) * torch.log1p(b * h) + torch.log1p(a * b * h.square())
        log_normal = -0.5 * (z.square().sum(dim=-1) + width * math.log(2 * math.pi))
        return log_normal + log_jacobian


class PosteriorNet(nn.Module):
    """Encoder, batch norm on the latent, and a flow per class."""

    def __init__(
        self,
        *,
        width: int,
        hidden: int,
        latent: int,
        layers: int,
        counts: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.log_counts: Tensor
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("log_counts", torch.tensor(counts, dtype=torch.float64).log())
        self.encoder = mlp([width, hidden, hidden, latent], generator).double()
        self.norm = nn.BatchNorm1d(latent, affine=False, dtype=torch.float64)
        self.flows = RadialFlows(len(counts), latent, layers, generator)

    def latents(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, Z), each about standard over the bank."""
        encoded: Tensor = self.norm(self.encoder((vectors.double() - self.mean) / self.scale))
        return encoded

    def log_evidence(self, vectors: Tensor) -> Tensor:
        """log N_c + log p_c(z) for each class; (B, D) -> (B, K)."""
        return self.log_counts + self.flows.log_densities(self.latents(vectors))


def concentrations(log_evidence: Tensor) -> Tensor:
    """alpha_c = 1 + N_c p_c(z), the Dirichlet posterior of a uniform prior; same shape."""
    return 1 + log_evidence.clamp_max(EXPONENT_MAX).exp()


def expected_cross_entropy(alpha: Tensor, targets: Tensor) -> Tensor:
    """The mean of -log p_y over class probabilities p drawn from Dirichlet(alpha), in closed form.

    digamma(sum of alpha) - digamma(alpha_y), each image by itself. With a single class it is 0 whatever alpha.

    Shapes: alpha (B, K), targets (B,) -> (B,) nats.

    Source: Charpentier, Zügner, Günnemann 2020, arXiv:2006.09239, the uncertain cross-entropy loss.
    """
    chosen = alpha.gather(-1, targets[:, None])[:, 0]
    return torch.digamma(alpha.sum(dim=-1)) - torch.digamma(chosen)


def warm_up_loss(net: PosteriorNet, vectors: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the classes' shares of the evidence, and the density of latents as they are; scalar, nats.

    The Bayesian loss has no slope where a class has no density yet; this one has, so that every flow first comes to
    lie over its class.

    Shapes: vectors (B, D), targets (B,).

    Differs: not in the paper.
    """
    latents = net.latents(vectors)
    shares = nn.functional.cross_entropy(net.log_counts + net.flows.log_densities(latents), targets)
    density = net.flows.log_densities(latents.detach()).gather(-1, targets[:, None]).mean()
    return shares - density


def bayesian_loss(alpha: Tensor, targets: Tensor, entropy_weight: float) -> Tensor:
    """Mean expected cross-entropy less the weighted entropy of the Dirichlet distribution; scalar, nats.

    Source: Charpentier, Zügner, Günnemann 2020, arXiv:2006.09239, the Bayesian loss.
    """
    distribution = torch.distributions.Dirichlet(alpha, validate_args=False)
    entropy: Tensor = distribution.entropy()  # type: ignore[no-untyped-call]
    return (expected_cross_entropy(alpha, targets) - entropy_weight * entropy).mean()
