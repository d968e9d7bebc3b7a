"""Vectors and their neighbours. Knows nothing of images or requests.

`kmeans` and `set_threads` are fetched on first use, so that importing the package does not load FAISS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from index.contract import NO_ID, Metric, Neighbours, VectorIndex
from index.errors import (
    CountMismatch,
    CountOutOfRange,
    IdInvalid,
    IdTaken,
    IdUnknown,
    KindUnknown,
    NotFinite,
    SnapshotDamaged,
    VectorIndexError,
    VectorsRefused,
    WidthMismatch,
)
from index.factory import KINDS, make_index

if TYPE_CHECKING:
    from index.faiss_kmeans import kmeans
    from index.faiss_scan import set_threads

__all__ = [
    "KINDS",
    "NO_ID",
    "CountMismatch",
    "CountOutOfRange",
    "IdInvalid",
    "IdTaken",
    "IdUnknown",
    "KindUnknown",
    "Metric",
    "Neighbours",
    "NotFinite",
    "SnapshotDamaged",
    "VectorIndex",
    "VectorIndexError",
    "VectorsRefused",
    "WidthMismatch",
    "kmeans",
    "make_index",
    "set_threads",
]

_ON_FIRST_USE = {"kmeans": "index.faiss_kmeans", "set_threads": "index.faiss_scan"}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
