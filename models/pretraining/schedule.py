"""Where a run stands, as a share of its budget, and what follows from it."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class StepBudget(BaseModel):
    """So many steps: the same result on any machine, in a time unknown beforehand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["steps"] = "steps"
    steps: int = Field(ge=1, description="Steps of the whole run.")

    def progress(self, step: int, elapsed_s: float) -> float:  # noqa: ARG002
        """Share of the budget spent, 0 to 1."""
        return min(1.0, step / self.steps)


class TimeBudget(BaseModel):
    """So many seconds, over all resumptions: the learning rate reaches its end however slow the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["seconds"] = "seconds"
    seconds: float = Field(gt=0, description="Seconds of the whole run, those before a resumption included.")

    def progress(self, step: int, elapsed_s: float) -> float:  # noqa: ARG002
        """Share of the budget spent, 0 to 1."""
        return min(1.0, max(0.0, elapsed_s / self.seconds))


Budget = Annotated[StepBudget | TimeBudget, Field(discriminator="kind")]


def learning_rate(progress: float, *, peak: float, warmup: float) -> float:
    """A linear rise from a twentieth of the peak, then half a cosine down to zero.

    Units: `progress` and `warmup` are shares of the budget, 0 to 1.

    >>> [round(learning_rate(p, peak=0.1, warmup=0.2), 4) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.005, 0.0525, 0.1, 0.05, 0.0]
    """
    if progress < warmup:
        return peak * (0.05 + 0.95 * progress / warmup)
    if progress >= 1:
        return 0.0
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def image_side(progress: float, sides: Sequence[tuple[float, int]]) -> int:
    """Side of the views at this point: that of the first entry whose share is not yet reached.

    >>> [image_side(p, [(0.5, 32), (1.0, 64)]) for p in (0.0, 0.49, 0.5, 1.0)]
    [32, 32, 64, 64]
    """
    for until, side in sides:
        if progress < until:
            return side
    return sides[-1][1]
