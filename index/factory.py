"""From the name of a kind to an index."""

from importlib import import_module
from typing import Literal, cast, get_args

from index.contract import Metric, VectorIndex
from index.errors import KindUnknown

Kind = Literal["exact", "flat", "scan", "hnsw", "ivf"]
CODED_ROWS = 10_000  # below, codes gain less than they cost to keep
EXACT_NUMBERS = 200_000 * 512  # one query over so many takes 8 ms on two cores (AVX2), 64 queries 60 ms
KINDS: tuple[Kind, ...] = get_args(Kind)

# Named, not imported: whoever only needs the errors or the exact index does not load FAISS.
_CLASSES: dict[Kind, tuple[str, str]] = {
    "exact": ("index.exact", "ExactIndex"),
    "flat": ("index.faiss_flat", "FlatIndex"),
    "scan": ("index.scan", "ScanIndex"),
    "hnsw": ("index.faiss_hnsw", "HnswIndex"),
    "ivf": ("index.faiss_ivf", "IvfIndex"),
}


def make_index(kind: Kind, *, width: int, metric: Metric) -> VectorIndex:
    """An empty index: `exact`, `flat` and `scan` give the same answers, `hnsw` and `ivf` a promised share.

    Raises:
        KindUnknown: there is no such kind.
        CountOutOfRange: `width` is below one.
    """
    if kind not in _CLASSES:
        raise KindUnknown(f"`kind` of an index must be one of {', '.join(KINDS)}; got {kind!r}.")
    module, name = _CLASSES[kind]
    return cast(VectorIndex, getattr(import_module(module), name)(width=width, metric=metric))


def choose_kind(rows: int, width: int, memory_bytes: int) -> Kind:
    """The kind that answers soonest for so many rows within this memory, the float32 rows included.

    Exact as long as that is quick. Beyond, a
    graph where the memory allows it, else lists; where not even those fit, `flat`, which needs the least.
    """
    needed = {
        "scan": rows * (width * 5 + 24 + 24),
        "hnsw": rows * (width * 5 + 40 + 144),
        "ivf": rows * (width * 4 + width // 8 + 40 + 8) + int(4 * rows**0.5) * (width + 72) * 4,
    }
    if rows < CODED_ROWS:
        return "flat"
    kinds: tuple[Kind, ...] = ("scan",) if rows * width <= EXACT_NUMBERS else ("hnsw", "ivf")
    return next((kind for kind in kinds if needed[kind] <= memory_bytes), "flat")
