"""Distance from the mean vector; can be slow, or refuse, when it is asked to."""

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import BankTooSmall, FitRefused

GO_ON = threading.Event()
GO_ON.set()


class SpreadParams(Params):
    """Parameters of `spread`."""

    factor: float = Field(1.0, gt=0.0, le=100.0, description="What the distance is multiplied by.")
    jitter: float = Field(0.0, ge=0.0, le=1.0, description="Noise added to the mean; the seed decides it.")
    refuse: bool = Field(False, description="Refuse to learn.")
    waits: bool = Field(False, description="Report progress until told to go on.")


@dataclass(frozen=True, slots=True)
class FittedSpread:
    """The mean."""

    mean: np.ndarray
    factor: float
    seen: np.ndarray
    method: str = "spread"

    def score(self, inputs: Inputs) -> Scores:
        assert inputs.vectors is not None
        away = np.array([np.linalg.norm(row - self.mean) for row in inputs.vectors])
        return Scores(image=(self.factor * away).astype(np.float32))

    def findings(self) -> dict[str, int]:
        return {"seen": int(self.seen.size)}

    def export(self) -> FittedState:
        return FittedState({"mean": self.mean, "seen": self.seen}, {"factor": self.factor})


class METHOD:
    """Mean of the bank's vectors."""

    name: ClassVar[str] = "spread"
    Params: ClassVar[type[Params]] = SpreadParams

    def __init__(self, params: SpreadParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedSpread:
        if self.params.refuse:
            raise FitRefused("The bank of method `spread` must please it; got this one.")
        while self.params.waits and not GO_ON.wait(0.01):
            if progress is not None:
                progress(0, 1)
        if not len(reference.bank):
            raise BankTooSmall("The bank of method `spread` must hold at least 1 image; got 0.")
        vectors = np.concatenate([np.asarray(batch.vectors) for batch in reference.bank])
        noise = np.random.default_rng(seed).normal(size=vectors.shape[1]) * self.params.jitter
        seen = np.concatenate([batch.ids for batch in reference.bank])
        return FittedSpread((vectors.mean(axis=0) + noise).astype(np.float32), self.params.factor, seen)

    def restore(self, state: FittedState) -> FittedSpread:
        return FittedSpread(state.arrays["mean"], state.values["factor"], state.arrays["seen"])
