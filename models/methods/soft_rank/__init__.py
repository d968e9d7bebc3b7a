"""Ranks and sorting with gradients; a bank is described by a subspace that its worst images do not bend.

Blondel, Teboul, Berthet, Djolonga 2020, "Fast Differentiable Sorting and Ranking", arXiv:2002.08871: soft ranks are
projections on the permutahedron, computed by isotonic regression in O(n log n).
"""

from models.methods.soft_rank.isotonic import Regularisation
from models.methods.soft_rank.maths import exact_strength, soft_rank, soft_sort, soft_spearman_loss, soft_top_k_loss
from models.methods.soft_rank.method import FittedSoftRank, SoftRank, SoftRankParams
from models.methods.soft_rank.trimmed import TrimmedComponents, trimmed_components, trimmed_loss

METHOD = SoftRank

__all__ = [
    "METHOD",
    "FittedSoftRank",
    "Regularisation",
    "SoftRank",
    "SoftRankParams",
    "TrimmedComponents",
    "exact_strength",
    "soft_rank",
    "soft_sort",
    "soft_spearman_loss",
    "soft_top_k_loss",
    "trimmed_components",
    "trimmed_loss",
]
