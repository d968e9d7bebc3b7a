"""A projection by chance, as good as it is asked to be; takes as long as it is asked to."""

from typing import Any, ClassVar, Literal

import numpy as np
from outside_methods.spread import GO_ON
from pydantic import Field

from models.contract import EmbeddingReport, FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import FitRefused
from models.projection import Head, Projection

BETTER = {"yes": True, "no": False, "unknown": None}


class TurnedParams(Params):
    """Parameters of `turned`."""

    width: int = Field(16, ge=2, le=256, description="Dimensions of the new embedding.")
    better: Literal["yes", "no", "unknown"] = Field("yes", description="What its report says.")
    waits: bool = Field(False, description="Report progress until told to go on.")


class FittedTurned:
    """The projection."""

    method = "turned"

    def __init__(self, learnt: Projection, params: dict[str, Any]) -> None:
        self._learnt = learnt
        self._params = params

    def embed(self, inputs: Inputs) -> np.ndarray:
        return self._learnt.apply(np.asarray(inputs.vectors))

    def score(self, inputs: Inputs) -> Scores:
        return Scores(image=1 - self.embed(inputs)[:, 0])

    def projection(self) -> Projection:
        return self._learnt

    def report(self) -> EmbeddingReport:
        better = BETTER[self._params["better"]]
        after = {"map_at_r": 0.9 if better else 0.1}
        figures: dict[str, dict[str, float]] = {"before": {}, "after": {}}
        if better is not None:
            figures = {"before": {"map_at_r": 0.5}, "after": after}
        return EmbeddingReport(**figures, better=better)

    def export(self) -> FittedState:
        return FittedState(self._learnt.arrays(), {"params": self._params})


class METHOD:
    """A matrix drawn from the seed."""

    name: ClassVar[str] = "turned"
    Params: ClassVar[type[Params]] = TurnedParams

    def __init__(self, params: TurnedParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedTurned:
        while self.params.waits and not GO_ON.wait(0.01):
            if progress is not None:
                progress(0, 1)
        batches = [*reference.bank, *(one for batches in reference.labels.values() for one in batches)]
        if not batches:
            raise FitRefused("The collection of method `turned` must hold images; got none.")
        random = np.random.default_rng(seed)
        weight = random.normal(size=(self.params.width, np.asarray(batches[0].vectors).shape[1])).astype(np.float32)
        bias = np.zeros(self.params.width, np.float32)
        return FittedTurned(Projection([Head(weight, bias)]), self.params.model_dump(mode="json"))

    def restore(self, state: FittedState) -> FittedTurned:
        return FittedTurned(Projection.of_arrays(state.arrays), dict(state.values["params"]))
