"""From the precision in which a score is computed to that in which it is told."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float32).max)


def as_float32(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Values as float32; what would be infinite there is the largest that is not."""
    cut: NDArray[np.float32] = np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)
    return cut
