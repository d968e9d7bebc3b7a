"""An image is strange where no class has density: evidence is counted, and far from all images there is none.

Charpentier, Zügner, Günnemann 2020, "Posterior Network: Uncertainty Estimation without OOD Samples via Density-Based
Pseudo-Counts", arXiv:2006.09239: a Dirichlet posterior whose pseudo-counts are class densities in a latent space.
"""

from models.methods.posterior_network.method import (
    Evidence,
    FittedPosteriorNetwork,
    PosteriorNetwork,
    PosteriorNetworkParams,
)

METHOD = PosteriorNetwork

__all__ = ["METHOD", "Evidence", "FittedPosteriorNetwork", "PosteriorNetwork", "PosteriorNetworkParams"]
