"""Fewer vectors for a large bank: k-means centres (the paper's speed-up) or a coreset of its own images.

Leave-one-out among centres or chosen images says nothing about new images: they were spread out on purpose,
so they are farther from one another than a normal image is from them. Calibrate a compressed bank on images
set aside before compressing (`cleaning.set_aside`), scored against the compressed bank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import index
from index import Metric, make_index
from models.errors import BankTooSmall, ParameterInvalid
from models.leave_one_out import Progress
from models.methods.dn2.maths import unit_rows

PROMISE = "calibrate on images set aside: leave-one-out among compressed vectors is meaningless"
"""What a leave-one-out calibration of a compressed bank is worth."""

_ROWS = 4096  # rows of one block of distances in the coreset: bounds its extra memory

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Vectors (Q, D) -> scores (Q,), larger = stranger."""


@dataclass(frozen=True, slots=True)
class CompressedBank:
    """A smaller bank that stands for a larger one."""

    vectors: NDArray[np.float32]
    """(M, D)"""
    ids: NDArray[np.int64]
    """(M,) the image each vector is, or is nearest to: what an explanation can show."""
    sizes: NDArray[np.int64]
    """(M,) images each vector stands for; they sum to N."""
    radius: float
    """Largest distance from any image to the vector that stands for it, in the metric's unit."""


def kmeans_bank(
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    n_centres: int,
    *,
    metric: Metric,
    seed: int,
    iterations: int = 25,
) -> CompressedBank:
    """The bank replaced by k-means centres; with as many centres as images it is the bank itself.

    Shapes: ids (N,), vectors (N, D) -> min(n_centres, N) vectors.
    Units:  for cosine the images are scaled to length 1 first, since k-means averages Euclidean positions.

    Raises:
        BankTooSmall: no image.
        ParameterInvalid: `n_centres` is below 1.

    Source:  Bergman, Cohen, Hoshen 2020, arXiv:2002.10445, the speed-up by k-means.
    Differs: nothing.
    """
    _check(ids, n_centres, "n_centres")
    if n_centres >= ids.size:
        return CompressedBank(
            vectors=vectors.copy(), ids=ids.copy(), sizes=np.ones(ids.size, dtype=np.int64), radius=0.0
        )
    points = unit_rows(vectors) if metric is Metric.COSINE else np.asarray(vectors, dtype=np.float32)
    centres, _ = index.kmeans(points, n_centres, seed=seed, iterations=iterations)
    return _standing_for(ids, vectors, centres, metric)


def coreset_bank(
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    n_kept: int,
    *,
    metric: Metric,
    seed: int,
    progress: Progress | None = None,
) -> CompressedBank:
    """A subset of the bank that leaves no image far from it: k-center greedy.

    The first image is drawn by the seed; each next one is the image farthest from all chosen so far. The
    radius is at most twice that of the best subset of the size.

    Shapes: ids (N,), vectors (N, D) -> min(n_kept, N) of the vectors, in the order chosen.
    Ties:   the earlier row wins.
    Memory: N distances and one block of 4,096 rows; time N * n_kept * D.

    Raises:
        BankTooSmall: no image.
        ParameterInvalid: `n_kept` is below 1.

    Source: Gonzalez 1985, the farthest-point rule; greedy coresets of banks were made popular by PatchCore.
    """
    _check(ids, n_kept, "n_kept")
    points = unit_rows(vectors) if metric is Metric.COSINE else np.asarray(vectors, dtype=np.float32)
    n_kept = min(n_kept, ids.size)
    chosen = np.empty(n_kept, dtype=np.intp)
    chosen[0] = np.random.default_rng(seed).integers(ids.size)
    # Squared Euclidean throughout: for vectors of length 1 it orders as 1 - cos does.
    to_chosen = np.full(ids.size, np.inf, dtype=np.float32)
    for step in range(1, n_kept + 1):
        last = points[chosen[step - 1]]
        for start in range(0, ids.size, _ROWS):
            rows = slice(start, start + _ROWS)
            difference = points[rows] - last
            np.minimum(to_chosen[rows], np.einsum("nd,nd->n", difference, difference), out=to_chosen[rows])
        to_chosen[chosen[step - 1]] = -1.0  # never again, even when only duplicates are left
        if step < n_kept:
            chosen[step] = int(np.argmax(to_chosen))
        if progress is not None:
            progress(step, n_kept)
    return _standing_for(ids, vectors, vectors[chosen], metric, own_ids=ids[chosen])


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well a compressed bank scores like the whole one, on images neither has seen."""

    n_probes: int
    spearman: float
    """Rank correlation of the two scores over all probes; NaN with fewer than two probes or constant
    scores."""
    mean_ratio: float
    """Mean of compressed / whole over probes with a whole score above 0; 1 = same scale, above 1 = farther
    away."""
    auc_whole: float | None
    """ROC-AUC of the whole bank's scores on the anomalous probes against the others; None without both
    kinds."""
    auc_compressed: float | None


def fidelity(
    whole: Scorer,
    compressed: Scorer,
    probes: NDArray[np.float32],
    *,
    anomalous: NDArray[np.bool_] | None = None,
) -> Fidelity:
    """The two banks compared on held-out probes.

    Shapes: probes (P, D), anomalous (P,) or None.

    Raises:
        ParameterInvalid: there is no probe, or `anomalous` has another length.
    """
    if probes.shape[0] == 0:
        raise ParameterInvalid("`probes` of a fidelity report must hold at least 1 image; got 0.")
    if anomalous is not None and anomalous.shape != probes.shape[:1]:
        raise ParameterInvalid(
            f"`anomalous` of a fidelity report must have one entry per probe, {probes.shape[0]}; got {anomalous.size}."
        )
    of_whole = np.asarray(whole(probes), dtype=np.float64)
    of_compressed = np.asarray(compressed(probes), dtype=np.float64)
    positive = of_whole > 0
    ratio = float(np.mean(of_compressed[positive] / of_whole[positive])) if positive.any() else float("nan")
    both_kinds = anomalous is not None and bool(anomalous.any()) and not bool(anomalous.all())
    return Fidelity(
        n_probes=probes.shape[0],
        spearman=_spearman(of_whole, of_compressed),
        mean_ratio=ratio,
        auc_whole=roc_auc(of_whole, anomalous) if both_kinds and anomalous is not None else None,
        auc_compressed=roc_auc(of_compressed, anomalous) if both_kinds and anomalous is not None else None,
    )


def roc_auc(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> float:
    """Probability that a random anomalous image scores above a random normal one; ties count one half.

    Shapes: scores (P,), anomalous (P,) with both kinds present.

    >>> roc_auc(np.array([1.0, 2.0, 2.0]), np.array([False, False, True]))
    0.75
    """
    n_anomalous = int(anomalous.sum())
    n_normal = anomalous.size - n_anomalous
    ranks = _mean_ranks(scores)
    return float((ranks[anomalous].sum() - n_anomalous * (n_anomalous + 1) / 2) / (n_anomalous * n_normal))


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    a, b = _mean_ranks(first) - (first.size + 1) / 2, _mean_ranks(second) - (second.size + 1) / 2
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else float("nan")


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs: as of `scipy.stats`, whose import takes a second."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks


def _standing_for(
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    kept: NDArray[np.float32],
    metric: Metric,
    own_ids: NDArray[np.int64] | None = None,
) -> CompressedBank:
    standins = make_index("flat", width=vectors.shape[1], metric=metric)
    standins.add(np.arange(kept.shape[0], dtype=np.int64), kept)
    to_own = np.empty(ids.size, dtype=np.float32)
    standing = np.empty(ids.size, dtype=np.int64)
    for start in range(0, ids.size, _ROWS):
        rows = slice(start, start + _ROWS)
        found = standins.search(vectors[rows], 1)
        standing[rows], to_own[rows] = found.ids[:, 0], found.distances[:, 0]
    if own_ids is None:
        images = make_index("flat", width=vectors.shape[1], metric=metric)
        images.add(ids, vectors)
        own_ids = images.search(kept, 1).ids[:, 0]
    return CompressedBank(
        vectors=kept.copy(),
        ids=own_ids.copy(),
        sizes=np.bincount(standing, minlength=kept.shape[0]).astype(np.int64),
        radius=float(to_own.max()),
    )


def _check(ids: NDArray[np.int64], count: int, name: str) -> None:
    if ids.size == 0:
        raise BankTooSmall("The bank of method `dn2` must hold at least 1 normal image to compress; got 0.")
    if count < 1:
        raise ParameterInvalid(f"`{name}` of compression must be 1 or more; got {count}.")
