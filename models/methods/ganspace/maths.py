"""The basis that carries principal coordinates of a generator's early layer to its latents.

Letters: N drawn latents, K kept directions, Z latent width.
"""

import numpy as np
from numpy.typing import NDArray


def latent_basis(coordinates: NDArray[np.float64], latents: NDArray[np.float64]) -> NDArray[np.float64]:
    """U, which turns coordinates of an early layer into a change of the latent: arg min of sum ||U x - z||^2.

    Shapes: coordinates (N, K) of centred activations, latents (N, Z) -> (Z, K).

    Source:  Härkönen, Hertzmann, Lehtinen, Paris 2020, arXiv:2004.02546, the section on BigGAN.
    """
    solution, *_ = np.linalg.lstsq(coordinates, latents, rcond=None)
    basis: NDArray[np.float64] = np.asarray(solution.T, dtype=np.float64)
    return basis
