"""Principal directions of a generator: found at an early layer, carried to its latents, applied to chosen layers.

A generator is anything that maps latents to activations; nothing here trains one.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import FitRefused, ParameterInvalid
from models.methods.ganspace.maths import latent_basis
from models.principal_directions import Directions, principal_directions

EarlyLayer = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Latents (n, Z) -> activations (n, D) of the layer whose directions are wanted."""


@dataclass(frozen=True, slots=True)
class GeneratorDirections:
    """Directions of an early layer and the basis that reaches them from the latent."""

    directions: Directions
    basis: NDArray[np.float64]
    """(Z, K); column i moves the activations along direction i."""

    def edited(self, latents: NDArray[np.float64], coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """The latents after a change of their coordinates, z + U x.

        Shapes: latents (B, Z), coordinates (B, K) or (K,) -> (B, Z).
        Units:  those of the activations; `directions.variances` ** 0.5 is one standard deviation.
        """
        moved: NDArray[np.float64] = latents + coordinates @ self.basis.T
        return moved

    def edited_layers(
        self,
        latents: NDArray[np.float64],
        coordinates: NDArray[np.float64],
        *,
        layers: Collection[int],
        n_layers: int,
    ) -> NDArray[np.float64]:
        """One latent per layer of the generator: changed for the chosen layers, as it was for the others.

        Shapes: latents (B, Z), coordinates (B, K) or (K,) -> (n_layers, B, Z).

        Raises:
            ParameterInvalid: a layer is not from 0 to n_layers - 1.
        """
        wrong = [layer for layer in layers if not 0 <= layer < n_layers]
        if wrong:
            raise ParameterInvalid(f"`layers` of an edit must be from 0 to {n_layers - 1}; got {wrong[0]}.")
        stacked = np.repeat(latents[None].astype(np.float64), n_layers, axis=0)
        stacked[sorted(set(layers))] = self.edited(latents, coordinates)
        return stacked


def generator_directions(
    early_layer: EarlyLayer, *, latent_width: int, most: int, samples: int, seed: int
) -> GeneratorDirections:
    """Principal directions of a generator's early layer over standard normal latents, and their latent basis.

    Shapes: `samples` latents (samples, Z) are drawn; K <= `most`.

    Raises:
        FitRefused: the layer gives the same activations for every latent.

    Source:  Härkönen, Hertzmann, Lehtinen, Paris 2020, arXiv:2004.02546.
    """
    latents = np.random.default_rng(seed).normal(size=(samples, latent_width))
    activations = np.asarray(early_layer(latents), dtype=np.float64)
    directions = principal_directions(activations, most)
    if not directions.variances.size:
        raise FitRefused("`early_layer` of the generator must vary with the latent; got equal activations.")
    coordinates = (activations - directions.mean) @ directions.components.T
    return GeneratorDirections(directions, latent_basis(coordinates, latents))
