"""LIME and SHAP by captum, over the cells of an image. Imported when it is asked for: captum is an optional extra.

Chance comes from a generator of our own, so the same seed gives the same map and torch's global state stays as it was.
Letters: M cells.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from captum.attr import LimeBase, ShapleyValueSampling
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor

from models.methods.explain.cells import BATCH, Attribution, Cells, Score

KERNEL_WIDTH = 0.25  # of LIME's kernel on cosine distances, as its authors' code has it for images


def lime(score: Score, cells: Cells, evaluations: int, seed: int) -> Attribution:
    """The slopes of a linear surrogate, fitted to images of which a random half of the cells is covered.

    Units: of the score; positive = the score is higher where the cell is uncovered.
    Cost:  `evaluations` images scored, the image and its baseline among them.

    Source: Ribeiro, Singh, Guestrin 2016, arXiv:1602.04938, algorithm 1, with ridge regression on all cells.
    """
    generator = torch.Generator().manual_seed(seed)
    ends = iter((torch.ones(1, len(cells)), torch.zeros(1, len(cells))))
    surrogate = _Surrogate()

    def drawn(_: Tensor, **__: Any) -> Tensor:
        known = next(ends, None)
        if known is not None:
            return known
        return torch.randint(0, 2, (1, len(cells)), generator=generator).float()

    told = LimeBase(
        _forward(score, cells),
        surrogate,
        lambda _, present, *__, **___: kernel(present),
        drawn,
        True,
        lambda sample, _, **__: sample,
        None,
    ).attribute(torch.ones(1, len(cells)), n_samples=evaluations, perturbations_per_eval=BATCH)
    assert surrogate.outputs is not None
    value, baseline_value = surrogate.outputs[:2].tolist()
    return Attribution(_on_grid(told, cells), value, baseline_value, evaluations)


def shap(score: Score, cells: Cells, evaluations: int, seed: int) -> Attribution:
    """Shapley values of the cells, by permutations in pairs, each beside its reverse.

    The values add up to score - baseline score, whatever the number of permutations.

    Units: of the score; positive = the cell raises it.
    Cost:  M images scored for each permutation, and 1; `evaluations` at most, but one pair at least.

    Source: Lundberg, Lee 2017, arXiv:1705.07874; permutations as in Castro, Gomez, Tejada 2009.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = max(1, (evaluations - 1) // (2 * len(cells)))

    def permutations(features: int, _: int) -> Iterable[Sequence[int]]:
        for _pair in range(pairs):
            order = torch.randperm(features, generator=generator).tolist()
            yield order
            yield order[::-1]

    seen = _Ends()
    sampler = ShapleyValueSampling(seen.watching(_forward(score, cells)))
    sampler.permutation_generator = permutations
    told = sampler.attribute(
        torch.ones(1, len(cells)),
        baselines=torch.zeros(1, len(cells)),
        n_samples=2 * pairs,
        perturbations_per_eval=BATCH,
    )
    return Attribution(_on_grid(told, cells), seen.whole, seen.bare, 1 + 2 * pairs * len(cells))


def kernel(present: Tensor) -> Tensor:
    """LIME's weight of a draw: by its cosine distance to "every cell", which is 1 - sqrt(share of cells present).

    Shapes: (1, M) -> (1,).
    """
    distance = 1.0 - present.mean(dim=1).sqrt()
    return torch.exp(-(distance**2) / (2.0 * KERNEL_WIDTH**2))


def permutation_cost(cells: int) -> int:
    """Images that one pair of permutations scores, with the baseline: fewer give no Shapley values."""
    return 1 + 2 * cells


def _forward(score: Score, cells: Cells) -> Callable[[Tensor], Tensor]:
    return lambda present: torch.from_numpy(cells.scores(score, present.numpy() > 0.5))


def _on_grid(values: Tensor, cells: Cells) -> NDArray[np.float64]:
    return values.double().numpy().reshape(cells.grid, cells.grid)


class _Ends:
    """The scores of the image and of its baseline, noted as they come by."""

    def __init__(self) -> None:
        self.whole = self.bare = math.nan

    def watching(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def watched(present: Tensor) -> Tensor:
            found = forward(present)
            for row, one in zip(present, found.tolist(), strict=True):
                if bool(row.all()):
                    self.whole = one
                elif not bool(row.any()):
                    self.bare = one
            return found

        return watched


class _Surrogate:
    """Ridge regression in the shape that captum asks of a surrogate."""

    def __init__(self) -> None:
        self.outputs: Tensor | None = None
        self._slopes: Tensor | None = None

    def fit(self, train_data: Any, **_: Any) -> None:
        # The rows at once: iterating the loader would draw from torch's global state.
        present, self.outputs, weights = train_data.dataset.tensors
        surrogate = Ridge(alpha=1.0)  # type: ignore[no-untyped-call]
        fitted = surrogate.fit(present.numpy(), self.outputs.numpy(), sample_weight=weights.numpy())
        self._slopes = torch.from_numpy(np.asarray(fitted.coef_, np.float64))

    def representation(self) -> Tensor:
        assert self._slopes is not None
        return self._slopes
