"""How rarely an image's latents occur, and how often it is therefore drawn.

Letters: N images, Z latents, H bins of a histogram.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LatentHistograms:
    """A histogram of every latent over the images it was made from."""

    edges: NDArray[np.float64]
    """(Z, H + 1)"""
    densities: NDArray[np.float64]
    """(Z, H) per standard deviation of the latent."""

    def bins(self, latents: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bin of each latent, the outermost for what lies outside; (N, Z) -> (N, Z)."""
        found = [
            np.searchsorted(edges[1:-1], column, side="right")
            for edges, column in zip(self.edges, latents.T, strict=True)
        ]
        return np.stack(found, axis=1)

    def densities_at(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        """The density of each latent's bin; (N, Z) -> (N, Z)."""
        at: NDArray[np.float64] = np.take_along_axis(self.densities.T, self.bins(latents), axis=0)
        return at


def latent_histograms(latents: NDArray[np.float64], bins: int) -> LatentHistograms:
    """Histograms with bins of equal width between the smallest and the largest value of each latent.

    Shapes: latents (N, Z), N >= 1. A latent that is the same everywhere has density 0: it says nothing of rarity.

    Differs: densities per standard deviation of each latent. A latent that the decoder does not use hardly moves;
             per unit its densities would be huge, and its noise would decide who is drawn.
    """
    pairs = [np.histogram(column, bins=bins, density=True) for column in latents.T]
    densities = np.stack([density for density, _ in pairs]) * latents.std(axis=0)[:, None]
    return LatentHistograms(edges=np.stack([edges for _, edges in pairs]), densities=densities)


def sampling_weights(densities: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """The probability with which each image is drawn: the product over its latents of 1 / (density + alpha).

    A small alpha draws rare images as often as common ones, a large one draws all alike.

    Shapes: densities (N, Z) of each image's bins -> (N,) with sum 1. The product is taken in logarithms.

    Source: Amini, Soleimany, Schwarting, Bhatia, Rus 2019, "Uncovering and Mitigating Algorithmic Bias through
            Learned Latent Structure", the resampling of the adaptive algorithm.

    >>> sampling_weights(np.array([[0.5, 0.5], [0.5, 0.1]]), 0.1).round(4).tolist()
    [0.25, 0.75]
    """
    log_weights = -np.log(densities + alpha).sum(axis=1)
    raised = np.exp(log_weights - log_weights.max())
    weights: NDArray[np.float64] = raised / raised.sum()
    return weights


def effective_sample_size(weights: NDArray[np.float64]) -> float:
    """How many images drawn alike hold as much as these: 1 / sum of squares; weights (N,) with sum 1 -> 1 to N."""
    return float(1 / np.square(weights).sum())


def histogram_entropy(
    latents: NDArray[np.float64], weights: NDArray[np.float64], histograms: LatentHistograms
) -> float:
    """Entropy of the weighted histograms in nats, mean over latents; log H when every bin is drawn alike.

    Shapes: latents (N, Z), weights (N,) with sum 1.
    """
    n_bins = histograms.densities.shape[1]
    total = 0.0
    for column in histograms.bins(latents).T:
        masses = np.bincount(column, weights=weights, minlength=n_bins)
        masses = masses[masses > 0]
        total -= float((masses * np.log(masses)).sum())
    return total / int(latents.shape[1])


def false_alarm_rates(
    scores: NDArray[np.floating], groups: NDArray[np.int64], n_groups: int, rate: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of each group above the border that `rate` of all images exceed, and the groups' sizes.

    Shapes: scores (N,), groups (N,) from 0 -> (n_groups,), 0 for an empty group, and (n_groups,).
    """
    border = np.quantile(scores, 1 - rate)
    sizes = np.bincount(groups, minlength=n_groups)
    alarms = np.bincount(groups, weights=scores > border, minlength=n_groups)
    return alarms / np.maximum(sizes, 1), sizes
