"""What a fit leaves behind: the new embedding, its figures, and how far an image lies from the bank in it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import EmbeddingReport, FittedState, Inputs, Reference, Scores
from models.errors import NothingToCompare
from models.held_out import stacked_vectors
from models.projection import Projection
from models.similarity.protocol import Outcome

NEIGHBOURS = 2
BANK_MAX = 10_000
"""Images of the bank that are kept to score against: those with the smallest keys."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedEmbedding:
    """A projection with its figures; scores by the nearest images of the bank."""

    method: str
    learnt: Projection
    told: EmbeddingReport
    bank: NDArray[np.float32]
    """(n, E) unit rows, or zeros"""
    params: Mapping[str, Any]

    def score(self, inputs: Inputs) -> Scores:
        """Mean cosine distance in the new embedding to the two nearest images of the bank, from 0 to 2.

        Raises:
            NothingToCompare: the bank was empty.
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: they are not of the width that was learnt on, or not finite.
        """
        if not len(self.bank):
            raise NothingToCompare(f"The bank of method `{self.method}` must hold normal images to score; got none.")
        bank = self.bank.astype(np.float64)
        found = np.empty(len(inputs), np.float32)
        for row, vector in enumerate(self.embed(inputs).astype(np.float64)):
            near = np.sort(1.0 - bank @ vector)[:NEIGHBOURS]
            found[row] = np.clip(near.mean(), 0.0, 2.0)
        return Scores(image=found)

    def embed(self, inputs: Inputs) -> NDArray[np.float32]:
        """(B, E) at unit length, each row from its image alone."""
        return self.learnt.apply(stacked_vectors([inputs], method=self.method, width=self.learnt.width_in))

    def projection(self) -> Projection:
        """What turns vectors of the collection into those of the new embedding."""
        return self.learnt

    def report(self) -> EmbeddingReport:
        """Figures on classes that nothing was learnt or chosen by."""
        return self.told

    def findings(self) -> dict[str, Any]:
        """The figures, by their names."""
        return asdict(self.told)

    def export(self) -> FittedState:
        """The state from which `restored` builds a scorer with equal scores."""
        return FittedState(
            arrays={**self.learnt.arrays(), "bank": self.bank},
            values={
                "params": dict(self.params),
                "before": dict(self.told.before),
                "after": dict(self.told.after),
                "better": self.told.better,
                "details": dict(self.told.details),
            },
        )


def fitted(method: str, outcome: Outcome, reference: Reference, params: Mapping[str, Any]) -> FittedEmbedding:
    """The scorer of an outcome, with the bank in its embedding."""
    projection = outcome.projection
    rows = stacked_vectors(reference.bank, method=method, width=projection.width_in)
    first = np.sort(np.lexsort((np.arange(len(rows)), reference.keys))[:BANK_MAX])
    return FittedEmbedding(method, projection, outcome.report, projection.apply(rows[first]), params)


def restored(method: str, state: FittedState) -> FittedEmbedding:
    """The scorer that was exported. Raises StateDamaged."""
    values = state.values
    arrays = {name: array for name, array in state.arrays.items() if name != "bank"}
    report = EmbeddingReport(values["before"], values["after"], values["better"], values["details"])
    return FittedEmbedding(method, Projection.of_arrays(arrays), report, state.arrays["bank"], values["params"])
