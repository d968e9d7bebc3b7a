"""What runs a backbone: the interface that every engine offers."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

BATCH_SIZES = (1, 2, 4, 8, 16)
BATCH_MAX = BATCH_SIZES[-1]

POOLED = "pooled"

FeaturePooling = Literal["mean", "sqrt_mean"]
"""How a map of features becomes a part of the vector: the average of each channel, or the square root of that average.

The root is power normalisation (Perronnin, Sánchez and Mensink, ECCV 2010, section 3.1, α = 1/2): a few channels that
answer strongly outweigh the others less. Maps follow a ReLU, so no average is negative.
"""


def stage_output(stage: int) -> str:
    """Name of the output that holds the map of one stage."""
    return f"stage{stage}"


class Engine(Protocol):
    """A frozen backbone on one kind of processor; many threads may call run() at the same time."""

    name: str  # openvino | torch | cuda
    precision: str  # float32 | bf16 | int8: as read back from what will compute, not as asked for
    threads: int
    hints: dict[str, str]  # what else decides rounding or speed, as read back
    runs_at_once: int  # so many calls of run() keep it busy; more only stand in line

    def run(self, batch: NDArray[np.float32], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The outputs asked for, computed in one pass; a row never depends on its mates.

        Shapes: batch (B, 3, S, S), B one of BATCH_SIZES -> "pooled" (B, width); "stage1" to "stage4" (B, h, w,
        channels).
        """
