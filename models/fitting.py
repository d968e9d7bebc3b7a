"""Fitting a method so that its promise can be kept: calibration images first, one path for every score.

Both the service and the benchmarks go through here, so what is served is what was evaluated.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import FittedScorer, Inputs, Method, Progress, Reference, Scores
from models.errors import BankTooSmall, MethodIncomplete
from models.fitted_files import read_state, state_bytes
from models.heat_maps import HeatScale, heat_scale
from models.inputs import one_image
from models.judging import VERDICT_MIN

CALIBRATION_SHARE = 0.2
"""Of the bank, held out; at least `VERDICT_MIN` images."""
CALIBRATION_ROWS = 2000
"""Most images scored for calibration; whatever else was held out with its group stays out of the fit too."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit leaves behind."""

    scorer: FittedScorer
    state: bytes
    """From which `restored` builds the same scorer."""
    sha256: str
    calibration: NDArray[np.float32]
    """(n,) scores of the images held out, in their order."""
    heat_scale: HeatScale | None
    """One scale for every heat map; None where the method gives none."""


def held_out(
    keys: NDArray[np.uint64], groups: Sequence[str | None], bank_min: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images of a bank are kept for calibration, and which are fitted; rows, both ascending.

    The hash of an image's id decides, or of its group's name: neither the order of the bank nor a seed has a
    say, the same images stay out when others come and go, and no group stands on both sides. A group larger
    than half the bank is never held out, since it would leave too little to learn from.

    Shapes: keys (N,) hashes of ids, groups N names or None, or empty -> (m,), (N - m,).

    Raises:
        BankTooSmall: fewer than 10 images could be held out, or fewer than 10 or `bank_min` would be left.
    """
    n = keys.size
    units: dict[str | int, list[int]] = {}
    for row in range(n):
        group = groups[row] if groups else None
        units.setdefault(row if group is None else group, []).append(row)
    hashed = {unit: int(keys[unit]) if isinstance(unit, int) else _hash(unit) for unit in units}
    needed = max(VERDICT_MIN, bank_min)
    wanted = min(CALIBRATION_ROWS, max(VERDICT_MIN, min(round(CALIBRATION_SHARE * n), n - needed)))
    aside: list[int] = []
    for unit in sorted(units, key=lambda one: (hashed[one], str(one))):
        if len(aside) >= wanted:
            break
        if 2 * (len(aside) + len(units[unit])) <= n:
            aside += units[unit]
    if len(aside) < VERDICT_MIN or n - len(aside) < needed:
        raise BankTooSmall(
            f"The bank must hold at least {VERDICT_MIN + needed} normal images, {VERDICT_MIN} of them of other groups "
            f"than the rest, so that {VERDICT_MIN} can be kept for calibration; got {n} images of {len(units)} groups."
        )
    rows = np.sort(np.array(aside, np.int64))
    return rows, np.setdiff1d(np.arange(n), rows, assume_unique=True)


def calibration_rows(keys: NDArray[np.uint64], aside: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows held out that are scored: all of them, or the 2,000 with the smallest keys; ascending."""
    by_key = aside[np.lexsort((aside, keys[aside]))]
    return np.sort(by_key[:CALIBRATION_ROWS])


def fit(
    method: Method,
    reference: Reference,
    calibration: Sequence[Inputs],
    *,
    seed: int,
    progress: Progress | None = None,
    calibrating: Progress | None = None,
) -> Fitted:
    """A scorer for the reference, and the scores of images that it has not seen.

    Calibration is scored by the scorer that comes back from its stored bytes, since that one will serve.

    Raises:
        FitRefused, BankTooSmall, ParameterInvalid: from the method.
        MethodIncomplete: the state cannot be stored, or a score is not a finite number.
    """
    state = state_bytes(method.name, method.fit(reference, seed=seed, progress=progress).export())
    digest = hashlib.sha256(state).hexdigest()
    scorer = restored(method, state, digest)
    scores: list[NDArray[np.float32]] = []
    maps: list[NDArray[np.float32]] = []
    done, total = 0, sum(map(len, calibration))
    for inputs in calibration:
        for one in scores_of(scorer, inputs):
            scores.append(one.image)
            if one.pixels is not None:
                maps.append(one.pixels[0])
            done += 1
            if calibrating is not None:
                calibrating(done, total)
    return Fitted(
        scorer=scorer,
        state=state,
        sha256=digest,
        calibration=np.concatenate(scores) if scores else np.zeros(0, np.float32),
        heat_scale=heat_scale(maps) if maps else None,
    )


def restored(method: Method, state: bytes, sha256: str) -> FittedScorer:
    """The scorer whose state was stored.

    Raises:
        StateDamaged: the bytes are not what was stored.
    """
    return method.restore(read_state(state, method=method.name, sha256=sha256))


def scores_of(scorer: FittedScorer, inputs: Inputs) -> Iterator[Scores]:
    """The answer for each image, asked for one at a time.

    Matrix products round differently in batches of different sizes; one image at a time has the same bits
    whoever else is in the request.

    Raises:
        MethodIncomplete: a score is missing or not finite.
    """
    for row in range(len(inputs)):
        found = scorer.score(one_image(inputs, row))
        is_sound = found.image.shape == (1,) and bool(np.isfinite(found.image).all())
        if found.pixels is not None:
            is_sound &= found.pixels.ndim == 3 and len(found.pixels) == 1 and bool(np.isfinite(found.pixels).all())
        if not is_sound:
            raise MethodIncomplete(f"A score of method `{scorer.method}` must be a finite number for each image.")
        yield found


def _hash(group: str) -> int:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
