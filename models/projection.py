"""A learned projection: from the vectors of a frozen network to those of a new embedding.

It is a few matrices, so whoever keeps it needs neither the code that learnt it nor torch.

Letters: B images, D features of the frozen network, E of the new embedding, H hidden units.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.distances import as_rows
from models.errors import StateDamaged

ROWS_AT_ONCE = 4096
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """One affine map of unit rows, behind a residual layer where there is one."""

    weight: Floats
    """(E, D)"""
    bias: Floats
    """(E,)"""
    trunk: tuple[Floats, Floats, Floats] | None = None
    """(H, D), (H,), (D, H): row + third @ relu(first @ row + second) is what the map sees."""

    def _apply(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.trunk is not None:
            into, shift, back = (part.astype(np.float64) for part in self.trunk)
            rows = rows + np.maximum(rows @ into.T + shift, 0.0) @ back.T
        found: NDArray[np.float64] = rows @ self.weight.astype(np.float64).T + self.bias
        return found

    def _pulled_back(self, rows: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = slopes @ self.weight.astype(np.float64)
        if self.trunk is not None:
            into, shift, back = (part.astype(np.float64) for part in self.trunk)
            is_on = rows @ into.T + shift > 0
            found = found + ((found @ back) * is_on) @ into
        return found


class Projection:
    """Unit rows of one or more heads side by side, at unit length again; nothing about it ever changes."""

    def __init__(self, heads: Sequence[Head]) -> None:
        assert heads
        self.heads = tuple(heads)
        self.width_in = int(heads[0].weight.shape[1])
        self.width = sum(len(head.weight) for head in heads)

    @property
    def memory_bytes(self) -> int:
        """Bytes of its matrices."""
        return sum(array.nbytes for array in self.arrays().values())

    def apply(self, vectors: NDArray[np.float32]) -> Floats:
        """The vectors in the new embedding, each from itself alone.

        Shapes: vectors (B, D) -> (B, E), unit length; a row that no head can tell from zero stays zero.
        Order:  computed in float64 and rounded once, so that mates move a value by one last bit at most.

        Raises:
            WidthMismatch, NotFinite: the vectors are not of the width that was learnt on, or not finite.
        """
        rows = as_rows(vectors, self.width_in, what="vectors")
        found = np.empty((len(rows), self.width), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = _unit(rows[start : start + ROWS_AT_ONCE].astype(np.float64))
            parts = [_unit(head._apply(block)) for head in self.heads]
            found[start : start + ROWS_AT_ONCE] = _unit(np.concatenate(parts, axis=1))
        return found

    def pulled_back(self, vectors: NDArray[np.float32], slopes: NDArray[np.floating]) -> NDArray[np.float64]:
        """How something changes with the network's vectors, from how it changes with the projected ones.

        Shapes: vectors (B, D), slopes (B, E) -> (B, D)
        """
        given = vectors.astype(np.float64)
        rows = _unit(given)
        outs = [head._apply(rows) for head in self.heads]
        # All parts have length one or zero, so that the last division is by a constant.
        sides = np.concatenate([_unit(out) for out in outs], axis=1)
        lengths = np.sqrt(np.square(sides).sum(axis=1, keepdims=True))
        told = slopes.astype(np.float64) / np.where(lengths > 0, lengths, 1.0)
        found = np.zeros_like(rows)
        starts = np.cumsum([0, *(len(head.weight) for head in self.heads)])
        for head, out, start in zip(self.heads, outs, starts, strict=False):
            found += head._pulled_back(rows, _unit_pulled_back(out, told[:, start : start + len(head.weight)]))
        return _unit_pulled_back(given, found)

    def fingerprint(self, base: str) -> str:
        """SHA-256 in hex of the new embedding: this projection behind the embedding with fingerprint `base`."""
        facts = {"embedding": base, "projection": self.sha256()}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sha256(self) -> str:
        """SHA-256 in hex of the matrices: names, shapes and numbers."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {array.shape}\n".encode() + np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()

    def arrays(self) -> dict[str, Floats]:
        """The matrices by name, for storage."""
        found: dict[str, Floats] = {}
        for number, head in enumerate(self.heads):
            found |= {f"{number}.weight": head.weight, f"{number}.bias": head.bias}
            if head.trunk is not None:
                found |= dict(zip((f"{number}.into", f"{number}.shift", f"{number}.back"), head.trunk, strict=True))
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Projection":
        """The projection whose matrices were stored. Raises StateDamaged where they do not fit together."""
        heads = []
        try:
            for number in range(sum(name.endswith(".weight") for name in arrays)):
                weight, bias = (_float32(arrays[f"{number}.{name}"]) for name in ("weight", "bias"))
                trunk = None
                if f"{number}.into" in arrays:
                    into, shift, back = (_float32(arrays[f"{number}.{name}"]) for name in ("into", "shift", "back"))
                    _require(into.shape == (len(shift), weight.shape[1]) and back.shape == into.shape[::-1])
                    trunk = (into, shift, back)
                _require(weight.ndim == 2 and bias.shape == weight.shape[:1] and weight.size > 0)
                heads.append(Head(weight, bias, trunk))
            _require(bool(heads) and len({head.weight.shape[1] for head in heads}) == 1)
        except (KeyError, IndexError) as error:
            raise StateDamaged(f"A projection must hold the matrices of every head; got {error!r}.") from error
        return cls(heads)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    found: NDArray[np.float64] = rows / np.where(lengths > 1e-30, lengths, 1.0)
    return found


def _unit_pulled_back(rows: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes by rows, from slopes by the same rows at unit length."""
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    safe = np.where(lengths > 1e-30, lengths, 1.0)
    along = (rows / safe * slopes).sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = (slopes - rows / safe * along) / safe
    return found


def _float32(array: NDArray[Any]) -> Floats:
    found = np.ascontiguousarray(array, np.float32)
    _require(bool(np.isfinite(found).all()))
    return found


def _require(is_sound: bool) -> None:
    if not is_sound:
        raise StateDamaged("The matrices of a projection must be finite and fit together; learn it again.")
