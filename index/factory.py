"""From the name of a kind to an index."""

from importlib import import_module
from typing import TYPE_CHECKING, Literal, cast, get_args, overload

from index.contract import Metric, VectorIndex
from index.errors import KindUnknown

if TYPE_CHECKING:
    from index.auto import AutoIndex

Kind = Literal["exact", "flat", "auto"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Named, not imported: whoever only needs the errors or the exact index does not load FAISS.
_CLASSES: dict[Kind, tuple[str, str]] = {
    "exact": ("index.exact", "ExactIndex"),
    "flat": ("index.faiss_flat", "FlatIndex"),
    "auto": ("index.auto", "AutoIndex"),
}


@overload
def make_index(kind: Literal["auto"], *, width: int, metric: Metric) -> "AutoIndex": ...


@overload
def make_index(kind: Kind, *, width: int, metric: Metric) -> VectorIndex: ...


def make_index(kind: Kind, *, width: int, metric: Metric) -> VectorIndex:
    """An empty index: `exact` and `flat` give the same answers, `auto` grows into a structure for its size.

    Raises:
        KindUnknown: there is no such kind.
        CountOutOfRange: `width` is below one.
    """
    if kind not in _CLASSES:
        raise KindUnknown(f"`kind` of an index must be one of {', '.join(KINDS)}; got {kind!r}.")
    module, name = _CLASSES[kind]
    return cast(VectorIndex, getattr(import_module(module), name)(width=width, metric=metric))
