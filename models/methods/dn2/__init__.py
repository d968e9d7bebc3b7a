"""An image is as strange as it is far from the normal images nearest to it.

Bergman, Cohen, Hoshen 2020, "Deep Nearest Neighbor Anomaly Detection", arXiv:2002.10445: features of a frozen
network, and the mean distance to the k nearest normal images. Nothing is trained; the bank is the method.
"""

from models.methods.dn2.cleaning import Cleaning, clean, cleaned, cleaning_k, set_aside
from models.methods.dn2.compression import (
    CompressedBank,
    Fidelity,
    coreset_bank,
    fidelity,
    kmeans_bank,
)
from models.methods.dn2.groups import REGISTERED_MIN, GroupBank, GroupScore, Pooling, make_group_bank, pool
from models.methods.dn2.method import CalibrationScores, DN2Params, DN2Scores, LiveDN2

METHOD = LiveDN2

__all__ = [
    "METHOD",
    "REGISTERED_MIN",
    "CalibrationScores",
    "Cleaning",
    "CompressedBank",
    "DN2Params",
    "DN2Scores",
    "Fidelity",
    "GroupBank",
    "GroupScore",
    "LiveDN2",
    "Pooling",
    "clean",
    "cleaned",
    "cleaning_k",
    "coreset_bank",
    "fidelity",
    "kmeans_bank",
    "make_group_bank",
    "pool",
    "set_aside",
]
