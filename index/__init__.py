"""Vectors and their neighbours. Knows nothing of images or requests.

`kmeans` is fetched on first use, so that importing the package does not load FAISS.
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
from index.factory import KINDS, Kind, choose_kind, make_index
from index.snapshot import SnapshotHeader, load_snapshot, read_header, save_snapshot
from index.threads import set_threads

if TYPE_CHECKING:
    from index.faiss_kmeans import kmeans

__all__ = [
    "KINDS",
    "NO_ID",
    "CountMismatch",
    "CountOutOfRange",
    "IdInvalid",
    "IdTaken",
    "IdUnknown",
    "Kind",
    "KindUnknown",
    "Metric",
    "Neighbours",
    "NotFinite",
    "SnapshotDamaged",
    "SnapshotHeader",
    "VectorIndex",
    "VectorIndexError",
    "VectorsRefused",
    "WidthMismatch",
    "choose_kind",
    "kmeans",
    "load_snapshot",
    "make_index",
    "read_header",
    "save_snapshot",
    "set_threads",
]


def __getattr__(name: str) -> Any:
    if name != "kmeans":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("index.faiss_kmeans").kmeans
