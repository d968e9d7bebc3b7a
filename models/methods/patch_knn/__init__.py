"""An image is as strange as the one of its patches that lies farthest from every patch of the normal images.

Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler 2021, "Towards Total Recall in Industrial Anomaly Detection",
arXiv:2106.08265 (PatchCore), after Cohen, Hoshen 2020, "Sub-Image Anomaly Detection with Deep Pyramid
Correspondences", arXiv:2005.02357 (SPADE): nearest neighbours for every place of the feature maps.
"""

from models.methods.patch_knn.coreset import Coreset, StreamingCoreset, greedy_coreset
from models.methods.patch_knn.method import FittedPatchKNN, PatchKNN, PatchKNNParams

METHOD = PatchKNN

__all__ = [
    "METHOD",
    "Coreset",
    "FittedPatchKNN",
    "PatchKNN",
    "PatchKNNParams",
    "StreamingCoreset",
    "greedy_coreset",
]
