"""An image is strange if an autoencoder rebuilds it badly; rare normal images are shown to it as often as common ones.

Amini, Soleimany, Schwarting, Bhatia, Rus 2019, "Uncovering and Mitigating Algorithmic Bias through Learned Latent
Structure": the latents of a variational autoencoder say which images are rare, and those are drawn more often.
"""

from models.methods.db_vae.maths import effective_sample_size, latent_histograms, sampling_weights
from models.methods.db_vae.method import Debiasing, DebiasingParams, FittedDebiasing

METHOD = Debiasing

__all__ = [
    "METHOD",
    "Debiasing",
    "DebiasingParams",
    "FittedDebiasing",
    "effective_sample_size",
    "latent_histograms",
    "sampling_weights",
]
