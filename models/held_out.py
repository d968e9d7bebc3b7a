"""What a fit reads of a bank: its vectors in one array, and which images stay out of it for calibration.

A score is calibrated on normal images that took no part in the fit. Which ones is decided by the hash of each
image's id, so that neither the order of the bank nor a seed has a say, and images of one group stay together:
a burst that stood on both sides would promise too few false alarms.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.distances import as_rows
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, ParameterInvalid

CALIBRATION_SHARE = 0.2
CALIBRATION_MAX = 2000


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows of a bank are learnt from and which are kept for calibration; both by ascending key."""

    fit: NDArray[np.int64]
    """(n,)"""
    calibration: NDArray[np.int64]
    """(m,)"""


@dataclass(frozen=True, slots=True)
class BankVectors:
    """The vectors of a bank, split."""

    fit: NDArray[np.float32]
    """(n, D)"""
    fit_ids: NDArray[np.int64]
    """(n,)"""
    calibration: NDArray[np.float32]
    """(m, D)"""
    calibration_ids: NDArray[np.int64]
    """(m,)"""


def split(
    keys: NDArray[np.uint64],
    groups: Sequence[str | None] = (),
    *,
    share: float = CALIBRATION_SHARE,
    most: int = CALIBRATION_MAX,
) -> Split:
    """Rows to learn from and rows to hold out: about `share` of them, whole groups, at most `most`.

    A group is passed over when it would hold out more than was asked for; when every group is larger than
    that, the smallest is held out. With a single group nothing can be held out.

    Shapes: keys (N,), groups N names or None, or empty -> two that together are all N rows.
    Ties:   equal keys by row.

    Raises:
        ParameterInvalid: `groups` has another length than `keys`.
    """
    if len(groups) not in (0, keys.size):
        raise ParameterInvalid(f"`groups` must have one entry per image, {keys.size}; got {len(groups)}.")
    members: dict[tuple[int, str], list[int]] = {}
    for row, key in enumerate(keys.tolist()):
        group = groups[row] if groups else None
        unit = (key, f"row {row}") if group is None else (_hash(group), f"group {group}")
        members.setdefault(unit, []).append(row)
    wanted = min(most, max(1, round(share * keys.size)))
    held_out: list[int] = []
    for unit in sorted(members):
        if len(held_out) + len(members[unit]) <= wanted:
            held_out += members[unit]
    if not held_out and len(members) > 1:
        held_out = members[min(members, key=lambda unit: (len(members[unit]), unit))]
    by_key = np.lexsort((np.arange(keys.size), keys))
    chosen = np.isin(by_key, held_out)
    return Split(fit=by_key[~chosen], calibration=by_key[chosen])


def bank_vectors(reference: Reference, *, method: str, bank_min: int) -> BankVectors:
    """The vectors of a bank, those to learn from apart from those held out, both by ascending key.

    Memory: 4 N D bytes, twice while they are put in order.

    Raises:
        BankTooSmall: fewer than `bank_min` images, or all of one group.
        ParameterInvalid: the bank comes without vectors.
        WidthMismatch, NotFinite: the vectors are not of one width, or not finite.
    """
    size = sum(len(inputs) for inputs in reference.bank)
    too_small = BankTooSmall(
        f"The bank of method `{method}` must hold at least {bank_min} normal images, not all of one group; got {size}."
    )
    if size < max(bank_min, 2):
        raise too_small
    parts = split(reference.keys, reference.groups)
    if not parts.calibration.size:
        raise too_small
    vectors = stacked_vectors(reference.bank, method=method)
    ids = np.concatenate([inputs.ids for inputs in reference.bank])
    return BankVectors(
        fit=vectors[parts.fit],
        fit_ids=ids[parts.fit],
        calibration=vectors[parts.calibration],
        calibration_ids=ids[parts.calibration],
    )


def stacked_vectors(batches: Sequence[Inputs], *, method: str, width: int | None = None) -> NDArray[np.float32]:
    """The vectors of several batches, one under the other, (N, D) float32.

    Raises:
        ParameterInvalid: a batch comes without vectors.
        WidthMismatch, NotFinite: they are not of one width, or not finite.
    """
    rows = []
    for inputs in batches:
        if inputs.vectors is None:
            raise ParameterInvalid(f"`vectors` of the inputs of method `{method}` must be given; got none.")
        width = inputs.vectors.shape[-1] if width is None else width
        rows.append(as_rows(inputs.vectors, width, what="vectors"))
    return np.concatenate(rows) if rows else np.zeros((0, width or 0), dtype=np.float32)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
