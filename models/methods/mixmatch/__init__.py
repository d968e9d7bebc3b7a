"""Few labels and many images without any: guess the missing labels, sharpen the guesses, mix everything, learn.

Berthelot, Carlini, Goodfellow, Papernot, Oliver, Raffel 2019, "MixMatch: A Holistic Approach to Semi-Supervised
Learning", arXiv:1905.02249.
"""

from models.methods.mixmatch.method import FittedMixMatch, MixMatch, MixMatchParams

METHOD = MixMatch

__all__ = ["METHOD", "FittedMixMatch", "MixMatch", "MixMatchParams"]
