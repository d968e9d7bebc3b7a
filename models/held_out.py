"""What a fit reads of a bank: its vectors in one array, and which images it judges itself by instead of learning them.

Early stopping, and every figure a fit reports of itself, needs images that no gradient has seen. Which ones is
decided by the hash of each image's id, so that neither the order of the bank nor a seed has a say, and images of
one group stay together: a burst that stood on both sides would flatter the fit.

The calibration images are no part of this: whoever fits has held them back before.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.distances import as_rows
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, FitRefused, ParameterInvalid

HELD_OUT_SHARE = 0.15
HELD_OUT_MAX = 2000


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows of a bank are learnt from and which are held out; both by ascending key."""

    fit: NDArray[np.int64]
    """(n,)"""
    held_out: NDArray[np.int64]
    """(m,)"""


@dataclass(frozen=True, slots=True)
class BankRows:
    """The vectors of a bank by ascending key, so that they do not depend on the order of the bank."""

    vectors: NDArray[np.float32]
    """(N, D)"""
    ids: NDArray[np.int64]
    """(N,)"""
    is_held_out: NDArray[np.bool_]
    """(N,)"""


def split(
    keys: NDArray[np.uint64],
    groups: Sequence[str | None] = (),
    *,
    share: float = HELD_OUT_SHARE,
    most: int = HELD_OUT_MAX,
) -> Split:
    """Rows to learn from and rows to hold out: about `share` of them, at least one, whole groups, at most `most`.

    A group is passed over when it would hold out more than was asked for; when every group is larger than
    that, the smallest is held out. A bank of one group is split as if it had none.

    Shapes: keys (N,) with N >= 2, groups N names or None, or empty -> two that together are all N rows.
    Ties:   equal keys by row.

    Raises:
        ParameterInvalid: `groups` has another length than `keys`.
    """
    if len(groups) not in (0, keys.size):
        raise ParameterInvalid(f"`groups` must have one entry per image, {keys.size}; got {len(groups)}.")
    if len(set(groups)) == 1:
        groups = ()
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
    if not held_out:
        held_out = members[min(members, key=lambda unit: (len(members[unit]), unit))]
    by_key = np.lexsort((np.arange(keys.size), keys))
    chosen = np.isin(by_key, held_out)
    return Split(fit=by_key[~chosen], held_out=by_key[chosen])


def bank_rows(
    reference: Reference,
    *,
    method: str,
    bank_min: int,
    share: float = HELD_OUT_SHARE,
    read: Callable[[Inputs], NDArray[np.float32]] | None = None,
) -> BankRows:
    """The vectors of a bank, or what `read` makes of each batch, with the mark which of them a fit holds out.

    Shapes: `read` gives (B, D) for a batch of B images.
    Memory: 4 N D bytes, twice while they are put in order.

    Raises:
        BankTooSmall: fewer than `bank_min` images, or fewer than two.
        ParameterInvalid: the bank comes without vectors, or `groups` is not one per image.
        WidthMismatch, NotFinite: the vectors are not of one width, or not finite.
    """
    size = sum(len(inputs) for inputs in reference.bank)
    if size < max(bank_min, 2):
        raise BankTooSmall(
            f"The bank of method `{method}` must hold at least {max(bank_min, 2)} normal images; got {size}."
        )
    parts = split(reference.keys, reference.groups, share=share)
    order = np.lexsort((np.arange(size), reference.keys))
    ids = np.concatenate([inputs.ids for inputs in reference.bank])
    if read is None:
        rows = stacked_vectors(reference.bank, method=method)
    else:
        rows = np.concatenate([read(inputs) for inputs in reference.bank])
    return BankRows(vectors=rows[order], ids=ids[order], is_held_out=np.isin(order, parts.held_out))


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


def images_alike(method: str, images: int) -> FitRefused:
    """The refusal of a bank in which there is nothing to learn, since its images are all alike."""
    return FitRefused(f"The bank of method `{method}` must hold images that differ; got {images} alike.")


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
