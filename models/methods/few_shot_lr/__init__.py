"""A class is known from a handful of images: logistic regression on unit-length vectors of a frozen network.

Tian, Wang, Krishnan, Tenenbaum, Isola 2020, "Rethinking Few-Shot Image Classification: a Good Embedding Is All You
Need?", arXiv:2003.11539. Classes come and go at any time; an image near none of them is told apart.
"""

from models.methods.few_shot_lr.method import Classified, Examples, FewShotLRParams, FittedClasses, LiveFewShotLR

METHOD = LiveFewShotLR

__all__ = ["METHOD", "Classified", "Examples", "FewShotLRParams", "FittedClasses", "LiveFewShotLR"]
