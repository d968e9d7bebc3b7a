"""An image is as strange as it is unlikely under a generative model of known and unknown kinds, learnt from few labels.

Willetts, Roberts, Holmes 2019, "Semi-Unsupervised Learning: Clustering and Classifying using Ultra-Sparse Labels",
arXiv:1901.08560: a deep generative model whose latent space is a mixture of one Gaussian per kind, some of them named.
"""

from models.methods.gm_dgm.method import FittedGmDgm, GmDgm, GmDgmParams

METHOD = GmDgm

__all__ = ["METHOD", "FittedGmDgm", "GmDgm", "GmDgmParams"]
