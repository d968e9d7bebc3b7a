"""The measurements: images, sets of images, and a bank with strangers in it.

Everything that scores is what the service uses: the live scorer, its calibration, its cleaning, its groups. Rows are
rows of a `Pool`; an image's key is that of its sha256, which is its id in the service.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.shelf import image_key
from benchmarks.embedding import Pool
from benchmarks.errors import BenchmarkRefused, TooFewSets
from benchmarks.metrics import average_precision, false_positive_rate_at, roc_auc
from models.judging import anomalous, make_calibration
from models.methods.dn2 import DN2Params, LiveDN2, cleaned
from models.methods.dn2.groups import drawn_group_bank
from models.pooling import ScorePooling, pooled, usual_score

Rows = NDArray[np.int64]
SETS_MIN, SETS_MAX = 5, 500  # of each kind


def live_bank(pool: Pool, rows: Rows, params: DN2Params) -> LiveDN2:
    """The service's live scorer with these images as its bank."""
    scorer = LiveDN2(width=pool.vectors.shape[1], params=params)
    keys = np.array([image_key(pool.sha256[row]) for row in rows], np.uint64)
    scorer.add_normal(rows, keys, pool.vectors[rows], [None] * rows.size)
    return scorer


def measure_images(
    pool: Pool, bank: Rows, normal: Rows, strangers: Rows, params: DN2Params, rates: Sequence[float]
) -> dict[str, Any]:
    """How well single images are told apart, and how the false-alarm rate asked for was kept."""
    started = time.perf_counter()
    scorer = live_bank(pool, bank, params)
    calibration = scorer.calibration().scores
    ready = time.perf_counter()
    scores = scorer.score(pool.vectors[np.concatenate([normal, strangers])], neighbours=0).score
    finished = time.perf_counter()
    measured = told_apart(scores, np.arange(scores.size) >= normal.size)
    return {
        **measured,
        "bank": int(bank.size),
        "rates": [_rate(scores[: normal.size], scores[normal.size :], calibration, rate) for rate in rates],
        "seconds": {"bank_and_calibration": ready - started, "scoring": finished - ready},
    }


def measure_sets(
    pool: Pool,
    bank: Rows,
    normal: Rows,
    strangers: Rows,
    params: DN2Params,
    rates: Sequence[float],
    *,
    size: int,
    fraction: float,
    pooling: str,
    random: np.random.Generator,
) -> dict[str, Any]:
    """How well sets of `size` images with `round(fraction * size)` strangers are told from normal sets.

    The normal test images are cut into disjoint normal sets; as many strange ones are drawn, filled up with normal
    test images. Ranking figures from fewer than 5 sets of a kind would mean nothing and are refused.

    Raises:
        TooFewSets: there are too few test images.
        BenchmarkRefused: the fraction puts no stranger into a set.
    """
    strange = strangers_in_set(size, fraction)
    mixed = random.permutation(normal)
    count = min(normal.size // size, SETS_MAX)
    if count < SETS_MIN or strangers.size < strange:
        raise TooFewSets(
            f"Sets of {size} need {SETS_MIN * size} normal test images and {strange} strangers; got {normal.size} and "
            f"{strangers.size}."
        )
    normal_sets = [mixed[place * size : (place + 1) * size] for place in range(count)]
    strange_sets = [
        random.permutation(
            np.concatenate(
                [
                    random.choice(normal, size - strange, replace=False),
                    random.choice(strangers, strange, replace=False),
                ]
            )
        )
        for _ in range(count)
    ]
    sets = np.stack([*normal_sets, *strange_sets])
    started = time.perf_counter()
    scorer = live_bank(pool, bank, params)
    if pooling == ScorePooling.EXCESS:
        normals = scorer.calibration().scores
        usual = usual_score(normals, normals)
        calibration = pooled(scorer.calibration_in_sets(size), ScorePooling.EXCESS, usual)
        ready = time.perf_counter()
        of_images = scorer.score(pool.vectors[sets.ravel()], neighbours=0).score
        scores = pooled(of_images.reshape(sets.shape), ScorePooling.EXCESS, usual)
    else:
        groups = drawn_group_bank(scorer, size, pooling=pooling)
        calibration = groups.calibration
        ready = time.perf_counter()
        scores = np.array([groups.score(pool.vectors[one], neighbours=1).score for one in sets])
    finished = time.perf_counter()
    return {
        **told_apart(scores, np.arange(scores.size) >= count),
        "bank": int(bank.size),
        "size": size,
        "strangers_in_set": strange,
        "pooling": pooling,
        "rates": [_rate(scores[:count], scores[count:], calibration, rate) for rate in rates],
        "seconds": {"bank_and_calibration": ready - started, "scoring": finished - ready},
    }


def measure_contaminated(
    pool: Pool,
    bank: Rows,
    planted: Rows,
    normal: Rows,
    strangers: Rows,
    params: DN2Params,
    rates: Sequence[float],
    *,
    dropped: float,
) -> dict[str, Any]:
    """A clean bank, the same with strangers planted in it, and that one cleaned by leave-one-out scores."""
    whole = np.concatenate([bank, planted])
    started = time.perf_counter()
    thrown = cleaned(live_bank(pool, whole, params), dropped).dropped
    cleaning_s = time.perf_counter() - started
    remaining = np.setdiff1d(whole, thrown)
    return {
        "planted": int(planted.size),
        "share": planted.size / whole.size,
        "dropped": int(thrown.size),
        "planted_dropped": int(np.isin(thrown, planted).sum()),
        "clean": measure_images(pool, bank, normal, strangers, params, rates),
        "contaminated": measure_images(pool, whole, normal, strangers, params, rates),
        "cleaned": measure_images(pool, remaining, normal, strangers, params, rates),
        "seconds": {"cleaning": cleaning_s},
    }


def plant(normal: Rows, others: Sequence[Rows], share: float, random: np.random.Generator) -> Rows:
    """Strangers to plant, as equally from each other kind as can be, so that they are `share` of the whole bank.

    With N normal images the number is round(N * share / (1 - share)).

    Raises:
        BenchmarkRefused: the share is not from 0 to 0.5, or there are too few strangers.
    """
    if not 0.0 <= share <= 0.5:
        raise BenchmarkRefused(f"`contamination` must be from 0 to 0.5; got {share}.")
    wanted = round(normal.size * share / (1.0 - share))
    shuffled = [random.permutation(rows) for rows in others]
    in_turn = [
        rows[turn] for turn in range(max(map(len, shuffled), default=0)) for rows in shuffled if turn < rows.size
    ]
    if len(in_turn) < wanted:
        raise BenchmarkRefused(f"The bank needs {wanted} strangers for a share of {share}; got {len(in_turn)}.")
    return np.array(in_turn[:wanted], np.int64)


def strangers_in_set(size: int, fraction: float) -> int:
    """round(fraction * size). Raises BenchmarkRefused when that is none, or more than the set holds."""
    strange = round(fraction * size)
    if not 1 <= strange <= size:
        raise BenchmarkRefused(f"`fraction` of a set of {size} must come to 1 to {size} strangers; got {strange}.")
    return strange


def told_apart(scores: NDArray[np.floating[Any]], is_stranger: NDArray[np.bool_]) -> dict[str, Any]:
    """The three ranking figures with the numbers behind them."""
    return {
        "roc_auc": roc_auc(scores, is_stranger),
        "average_precision": average_precision(scores, is_stranger),
        "fpr_at_95_tpr": false_positive_rate_at(scores, is_stranger),
        "normal": int((~is_stranger).sum()),
        "strangers": int(is_stranger.sum()),
    }


def _rate(
    normal: NDArray[np.floating[Any]],
    strangers: NDArray[np.floating[Any]],
    calibration: NDArray[np.float32],
    requested: float,
) -> dict[str, Any]:
    made = make_calibration(calibration, requested)
    alarms, finds = anomalous(normal, made), anomalous(strangers, made)
    return {
        "requested": requested,
        "supported": made.supported,
        "promised": made.false_alarm_rate,
        "spread": list(made.spread),
        "n": made.n,
        "observed": None if alarms is None else float(alarms.mean()),
        "found": None if finds is None else float(finds.mean()),
    }
