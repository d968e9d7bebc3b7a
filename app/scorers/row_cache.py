"""Rows of arrays that are computed once and kept on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class RowCache:
    """Rows computed once, in a sparse file; none where the whole would take more than there is room for."""

    def __init__(self, path: Path, rows: int, shape: tuple[int, ...], room_bytes: int) -> None:
        self.size_bytes = rows * int(np.prod(shape)) * 4
        self._known = np.zeros(rows, np.bool_)
        if self.size_bytes > room_bytes:
            self.size_bytes = 0
            self._held = None
        else:
            self._held = array_on_disk(path, (rows, *shape))

    def has(self, rows: Rows) -> bool:
        """Whether all of these are kept."""
        return bool(self._known[rows].all())

    def get(self, rows: Rows, compute: Callable[[Rows], NDArray[np.float32]]) -> NDArray[np.float32]:
        """These rows, computed unless they are kept."""
        if self._held is None or not self.has(rows):
            found = compute(rows)
            self.put(rows, found)
            return found
        return np.array(self._held[rows])

    def put(self, rows: Rows, found: NDArray[np.float32]) -> None:
        """Keep these rows."""
        if self._held is not None:
            self._held[rows] = found
            self._known[rows] = True


def array_on_disk(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array in a sparse file of its own, all zeros."""
    if 0 in shape:
        return np.zeros(shape, np.float32)
    return np.memmap(path, np.float32, "w+", shape=shape)
