"""FAISS structures as bytes."""

from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from index.errors import SnapshotDamaged

T = TypeVar("T")

_BLOCK_BYTES = 1 << 20


def serialised(structure: Any) -> NDArray[np.uint8]:
    """The structure as bytes; a copy."""
    data: NDArray[np.uint8] = faiss.serialize_index(structure)
    return data


def deserialised(data: NDArray[np.uint8], kind: type[T]) -> T:
    """The structure that was `serialised`. Only for bytes that have been checked: FAISS trusts them.

    Memory: the structure; the bytes are read block by block.

    Raises:
        SnapshotDamaged: it is of another kind.
    """
    view = data.data
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        taken = bytes(view[position : position + size])
        position += len(taken)
        return taken

    made = faiss.read_index(faiss.PyCallbackIOReader(read, _BLOCK_BYTES))  # type: ignore[attr-defined]
    if not isinstance(made, kind):
        raise SnapshotDamaged(f"The structure must be a {kind.__name__}; got {type(made).__name__}.")
    return made
