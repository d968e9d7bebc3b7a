"""A small variational autoencoder with a Gaussian output of learnt width, trained under the debiased sampler.

Letters: B images, D features, Z latents.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.contract import Progress
from models.errors import FitRefused
from models.methods.db_vae.maths import effective_sample_size, latent_histograms, sampling_weights
from models.training import TrainingPlan, TrainingReport, mlp, train

SAMPLE_MIN = 20
"""Smallest effective sample size with which a fit goes on."""


class VariationalAutoencoder(nn.Module):
    """Encoder to mean and log variance of the latents, decoder to the mean of the features."""

    def __init__(self, *, width: int, hidden: int, latents: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.encoder = mlp([width, hidden, 2 * latents], generator).double()
        self.decoder = mlp([latents, hidden, width], generator).double()
        self.log_variance = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents; (B, D) -> (B, Z), (B, Z)."""
        encoded: Tensor = self.encoder((rows - self.mean) / self.scale)
        mean, log_variance = encoded.chunk(2, dim=-1)
        # Far outside the bank an unbounded log variance would overflow its exponential.
        return mean, log_variance.clamp(-20, 20)

    def terms(self, rows: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction and divergence of each image in nats; their sum is minus the evidence lower bound.

        Without `noise` the decoder sees the latents' mean, with it one draw.

        Shapes: rows (B, D), noise (B, Z) -> (B,), (B,).
        """
        mean, log_variance = self.encode(rows)
        latents = mean if noise is None else mean + (log_variance / 2).exp() * noise
        wanted = (rows - self.mean) / self.scale
        squares = (wanted - self.decoder(latents)).square()
        reconstruction = 0.5 * (squares / self.log_variance.exp() + self.log_variance + math.log(2 * math.pi))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return reconstruction.sum(dim=-1), divergence.sum(dim=-1)


def trained(
    rows: NDArray[np.float32],
    held_out: NDArray[np.float32],
    *,
    latents: int,
    hidden: int,
    bins: int,
    alpha: float | None,
    plan: TrainingPlan,
    generator: torch.Generator,
    method: str,
    progress: Progress,
) -> tuple[VariationalAutoencoder, TrainingReport]:
    """An autoencoder trained with images drawn by the rarity of their latents, or all alike without an `alpha`.

    The histograms are made anew before every epoch from the encoder's means. The held-out loss counts its images
    by the same rarity.

    Shapes: rows (N, D), held_out (M, D).

    Raises:
        FitRefused: the drawing came to rest on fewer than 20 images.
        ParameterInvalid: the learning rate is too large.
    """
    net = VariationalAutoencoder(width=rows.shape[1], hidden=hidden, latents=latents, generator=generator)
    inputs, stopping = torch.from_numpy(rows).double(), torch.from_numpy(held_out).double()
    net.mean.copy_(inputs.mean(dim=0))
    net.scale.fill_(max(float(inputs.var(dim=0, correction=0).mean().sqrt()), float(np.finfo(np.float32).tiny)))

    def loss(chosen: Tensor) -> Tensor:
        noise = torch.randn(len(chosen), latents, generator=generator, dtype=torch.float64)
        reconstruction, divergence = net.terms(inputs[chosen], noise)
        return (reconstruction + divergence).mean()

    def weights_of(asked: Tensor, alpha: float) -> NDArray[np.float64]:
        histograms = latent_histograms(net.encode(inputs)[0].numpy(), bins)
        return sampling_weights(histograms.densities_at(net.encode(asked)[0].numpy()), alpha)

    def held_out_loss() -> Tensor:
        total = torch.stack(net.terms(stopping)).sum(dim=0)
        return total.mean() if alpha is None else (total * torch.from_numpy(weights_of(stopping, alpha))).sum()

    sampler: Callable[[], Tensor] | None = None
    if alpha is not None:
        strength = alpha

        def sampler() -> Tensor:
            weights = weights_of(inputs, strength)
            size = effective_sample_size(weights)
            if size < SAMPLE_MIN:
                raise FitRefused(
                    f"`alpha` of method `{method}` must be large enough that at least {SAMPLE_MIN} images share the "
                    f"drawing; got {alpha}, with which {size:.1f} of {len(weights)} do."
                )
            return torch.from_numpy(weights)

    report = train(
        net,
        loss,
        rows=len(rows),
        plan=plan,
        generator=generator,
        method=method,
        held_out_loss=held_out_loss,
        sampling_weights=sampler,
        progress=progress,
    )
    return net.eval().requires_grad_(False), report
