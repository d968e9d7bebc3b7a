"""Vectors and their neighbours. Knows nothing of images or requests.

What needs FAISS is fetched on first use, so that importing the package does not load FAISS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from index.columns import SCRATCH_MIN_BYTES, set_scratch_folder
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
from index.factory import KINDS, Kind, make_index
from index.snapshot import ArraysFile, Blocks, StoredArray, open_arrays, write_arrays
from index.structures import STRUCTURES, StructureName, choose_structure
from index.threads import set_threads

if TYPE_CHECKING:
    from index.auto import AutoIndex, Built, Plan
    from index.faiss_kmeans import kmeans

__all__ = [
    "KINDS",
    "NO_ID",
    "SCRATCH_MIN_BYTES",
    "STRUCTURES",
    "ArraysFile",
    "AutoIndex",
    "Blocks",
    "Built",
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
    "Plan",
    "SnapshotDamaged",
    "StoredArray",
    "StructureName",
    "VectorIndex",
    "VectorIndexError",
    "VectorsRefused",
    "WidthMismatch",
    "choose_structure",
    "kmeans",
    "make_index",
    "open_arrays",
    "set_scratch_folder",
    "set_threads",
    "write_arrays",
]


_LAZY = {
    "AutoIndex": "index.auto",
    "Built": "index.auto",
    "Plan": "index.auto",
    "kmeans": "index.faiss_kmeans",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
