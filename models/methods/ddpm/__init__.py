"""An image is as strange as the noise put on it is hard to tell from it, for a network that learnt this on normal ones.

Ho, Jain, Abbeel 2020, "Denoising Diffusion Probabilistic Models", arXiv:2006.11239: noise is added over a schedule of
steps, a network learns to predict it, and predicting step by step turns noise into data.
"""

from models.methods.ddpm.method import Ddpm, DdpmParams, FittedDdpm

METHOD = Ddpm

__all__ = ["METHOD", "Ddpm", "DdpmParams", "FittedDdpm"]
