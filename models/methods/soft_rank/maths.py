"""Soft ranks and soft sorting with exact gradients, and losses made of them.

Both are projections on a permutahedron, the convex hull of all orders of a vector; the projection is an isotonic
regression, so forward and backward cost O(n log n).

Letters: B rows, n values, K classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.errors import ParameterInvalid
from models.methods.soft_rank.isotonic import Regularisation, entropic_blocks, quadratic_blocks

_Sums = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def soft_rank(values: Tensor, strength: float, regularisation: Regularisation = Regularisation.QUADRATIC) -> Tensor:
    """Differentiable ranks in which the largest value has rank 1.

    Quadratic: the Euclidean projection of -values / strength on the permutahedron of (n, ..., 1); entropic: the
    projection of exp(-values / strength) by Kullback-Leibler divergence. Ranks are the hard ones, exactly,
    while `strength` is below `exact_strength`, and tend to (n + 1) / 2 as it grows.

    Shapes: values (..., n) -> (..., n); each row sums to n (n + 1) / 2.
    Ties:   equal values have equal ranks.

    Raises:
        ParameterInvalid: `strength` is not above 0, or `values` has no entry.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, arXiv:2002.08871.
    """
    return _apply(_SoftRank, values, strength, regularisation)


def soft_sort(values: Tensor, strength: float, regularisation: Regularisation = Regularisation.QUADRATIC) -> Tensor:
    """Differentiable sorting, largest first: the projection of (n, ..., 1) / strength on the values' permutahedron.

    Sorted exactly for a small `strength`; as it grows every entry tends to the mean (quadratic) or to
    log mean exp (entropic) of the values.

    Shapes: values (..., n) -> (..., n), non-increasing.

    Raises:
        ParameterInvalid: `strength` is not above 0, or `values` has no entry.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, arXiv:2002.08871.
    """
    return _apply(_SoftSort, values, strength, regularisation)


def exact_strength(values: NDArray[np.floating], regularisation: Regularisation = Regularisation.QUADRATIC) -> float:
    """The strength below which soft ranks of these values are the hard ranks.

    Shapes: values (n,) -> 0 where two are equal, infinity for one value.

    Source: Blondel, Teboul, Berthet, Djolonga 2020, arXiv:2002.08871 (no two neighbours are pooled).
    """
    gaps = np.diff(np.sort(np.asarray(values, dtype=np.float64)))
    ranks = np.arange(len(gaps) + 1, 0, -1, dtype=np.float64)  # of the smallest value first
    steps = np.ones(len(gaps)) if regularisation is Regularisation.QUADRATIC else -np.diff(np.log(ranks))
    return float((gaps / steps).min(initial=np.inf))


def soft_top_k_loss(
    logits: Tensor,
    targets: Tensor,
    k: int,
    strength: float = 1.0,
    regularisation: Regularisation = Regularisation.QUADRATIC,
) -> Tensor:
    """How far the true class ranks below place k, mean of max(0, rank - k).

    Shapes: logits (B, K), targets (B,) class numbers -> scalar.
    """
    ranks = soft_rank(logits, strength, regularisation).gather(-1, targets[:, None])[:, 0]
    return (ranks - k).clamp_min(0).mean()


def soft_spearman_loss(
    values: Tensor,
    ranks: Tensor,
    strength: float = 1.0,
    regularisation: Regularisation = Regularisation.QUADRATIC,
) -> Tensor:
    """Half the squared distance of the soft ranks from the wanted ones, mean over rows.

    Minimising it maximises Spearman's rank correlation.

    Shapes: values (B, n), ranks (B, n), 1 for the largest -> scalar.
    """
    return (soft_rank(values, strength, regularisation) - ranks).square().sum(dim=-1).mean() / 2


def _apply(kind: type["_Projection"], values: Tensor, strength: float, regularisation: Regularisation) -> Tensor:
    if not strength > 0:
        raise ParameterInvalid(f"`strength` of a soft rank must be above 0; got {strength}.")
    if values.ndim < 1 or values.shape[-1] < 1:
        raise ParameterInvalid(f"`values` of a soft rank must have at least one entry; got {tuple(values.shape)}.")
    result: Tensor = kind.apply(values, strength, regularisation)  # type: ignore[no-untyped-call]
    return result


class _Projection(torch.autograd.Function):
    """Row by row: `solve` gives the answer and what its gradient needs, `pull` takes a gradient back."""

    @staticmethod
    def solve(row: NDArray[np.float64], strength: float, kind: Regularisation) -> tuple[NDArray[np.float64], Any]:
        raise NotImplementedError

    @staticmethod
    def pull(gradient: NDArray[np.float64], kept: Any, strength: float, kind: Regularisation) -> NDArray[np.float64]:
        raise NotImplementedError

    @classmethod
    def of_rows(cls, rows: NDArray[np.float64], strength: float, kind: Regularisation) -> tuple[Any, list[Any]]:
        solved = [cls.solve(row, strength, kind) for row in rows]
        return np.stack([answer for answer, _ in solved]) if solved else rows, [kept for _, kept in solved]


class _SoftRank(_Projection):
    @staticmethod
    def solve(row: NDArray[np.float64], strength: float, kind: Regularisation) -> tuple[NDArray[np.float64], Any]:
        z = -row / strength
        order = np.argsort(-z, kind="stable")
        z, rho = z[order], np.arange(row.size, 0, -1, dtype=np.float64)
        answer = np.empty_like(row)
        if kind is Regularisation.QUADRATIC:
            blocks = quadratic_blocks(z, rho)
            spread, over = _spread(blocks)
            # A value that shares its block with none keeps its rank to the last bit: z - z + rho.
            answer[order] = z - over(z) + over(rho)
            return answer, (order, spread, None)
        blocks = entropic_blocks(z, np.log(rho))
        spread, _ = _spread(blocks)
        shares = _softmax(z, blocks, spread)
        ranks = shares * spread(rho)
        answer[order] = ranks
        return answer, (order, spread, (shares, ranks))

    @staticmethod
    def pull(gradient: NDArray[np.float64], kept: Any, strength: float, kind: Regularisation) -> NDArray[np.float64]:
        order, spread, entropic = kept
        g = gradient[order]
        if kind is Regularisation.QUADRATIC:
            along = g - spread(g) / spread(np.ones_like(g))
        else:
            shares, ranks = entropic
            along = ranks * (g - spread(shares * g))
        result: NDArray[np.float64] = np.empty_like(g)
        result[order] = -along / strength
        return result

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float, kind: Regularisation) -> Tensor:
        return _forward(_SoftRank, ctx, values, strength, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _backward(_SoftRank, ctx, gradient)


class _SoftSort(_Projection):
    @staticmethod
    def solve(row: NDArray[np.float64], strength: float, kind: Regularisation) -> tuple[NDArray[np.float64], Any]:
        z = np.arange(row.size, 0, -1, dtype=np.float64) / strength
        order = np.argsort(-row, kind="stable")
        w = row[order]
        if kind is Regularisation.QUADRATIC:
            blocks = quadratic_blocks(z, w)
            spread, over = _spread(blocks)
            return z - over(z) + over(w), (order, spread, None)
        blocks = entropic_blocks(z, w)
        spread, _ = _spread(blocks)
        answer = z - _log_sum_exp(z, blocks, spread) + _log_sum_exp(w, blocks, spread)
        return answer, (order, spread, _softmax(w, blocks, spread))

    @staticmethod
    def pull(gradient: NDArray[np.float64], kept: Any, strength: float, kind: Regularisation) -> NDArray[np.float64]:
        del strength
        order, spread, shares = kept
        pooled = spread(gradient)
        result = np.empty_like(gradient)
        result[order] = pooled / spread(np.ones_like(pooled)) if kind is Regularisation.QUADRATIC else pooled * shares
        return result

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float, kind: Regularisation) -> Tensor:
        return _forward(_SoftSort, ctx, values, strength, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _backward(_SoftSort, ctx, gradient)


def _forward(cls: type[_Projection], ctx: Any, values: Tensor, strength: float, kind: Regularisation) -> Tensor:
    rows = values.detach().to(torch.float64).reshape(-1, values.shape[-1]).numpy()
    answers, ctx.kept = cls.of_rows(rows, strength, kind)
    ctx.strength, ctx.kind = strength, kind
    return torch.from_numpy(answers).reshape(values.shape).to(values.dtype)


def _backward(cls: type[_Projection], ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    rows = gradient.to(torch.float64).reshape(-1, gradient.shape[-1]).numpy()
    pulled = [cls.pull(row, kept, ctx.strength, ctx.kind) for row, kept in zip(rows, ctx.kept, strict=True)]
    result = torch.from_numpy(np.stack(pulled) if pulled else rows.copy())
    return result.reshape(gradient.shape).to(gradient.dtype), None, None


def _spread(blocks: NDArray[np.int64]) -> tuple[_Sums, _Sums]:
    """The sum, and the mean, over each place's block, at every place of it."""
    sizes = np.bincount(blocks)

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(blocks, weights=values, minlength=sizes.size).astype(np.float64)
        return sums[blocks]

    return total, lambda values: total(values) / sizes[blocks]


def _softmax(values: NDArray[np.float64], blocks: NDArray[np.int64], spread: _Sums) -> NDArray[np.float64]:
    raised = np.exp(values - _block_maximum(values, blocks))
    return raised / spread(raised)


def _log_sum_exp(values: NDArray[np.float64], blocks: NDArray[np.int64], spread: _Sums) -> NDArray[np.float64]:
    high = _block_maximum(values, blocks)
    return high + np.log(spread(np.exp(values - high)))


def _block_maximum(values: NDArray[np.float64], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    highest: NDArray[np.float64] = np.maximum.reduceat(values, starts)[blocks]
    return highest
