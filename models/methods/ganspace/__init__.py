"""An image is strange along a direction in which normal images vary, or outside all of them.

Härkönen, Hertzmann, Lehtinen, Paris 2020, "GANSpace: Discovering Interpretable GAN Controls", arXiv:2004.02546:
principal components of a network's activations are directions a person can name.
"""

from models.methods.ganspace.generator import GeneratorDirections, generator_directions
from models.methods.ganspace.method import FittedGANSpace, GANSpace, GANSpaceParams

METHOD = GANSpace

__all__ = [
    "METHOD",
    "FittedGANSpace",
    "GANSpace",
    "GANSpaceParams",
    "GeneratorDirections",
    "generator_directions",
]
