"""Many strings in two arrays: a tenth of what as many Python strings take, and ready to be written to a file."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Texts out of JSON may hold half a surrogate pair, which plain UTF-8 refuses. Bytes keep the order of the code points.
CODEC = ("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class PackedStrings:
    """Strings as UTF-8 one after the other; never changed.

    Shapes: blob (bytes,) uint8; offsets (n + 1,) int64, the string i lies between offsets i and i + 1.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "PackedStrings":
        """These strings, in order."""
        parts = [text.encode(*CODEC) for text in texts]
        return cls(np.frombuffer(b"".join(parts), np.uint8), _offsets(np.fromiter(map(len, parts), np.int64)))

    @classmethod
    def joined(cls, parts: Sequence["PackedStrings"]) -> "PackedStrings":
        """The strings of all parts, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        lengths = [np.diff(part.offsets) for part in parts]
        return cls(np.concatenate([part.blob for part in parts]), _offsets(np.concatenate(lengths)))

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, place: int) -> str:
        return self.bytes_of(place).decode(*CODEC)

    def bytes_of(self, place: int) -> bytes:
        """One string as it is stored."""
        return self.blob[self.offsets[place] : self.offsets[place + 1]].tobytes()

    def texts(self) -> list[str]:
        """All of them as Python strings."""
        whole, edges = self.blob.tobytes(), self.offsets.tolist()
        return [whole[start:end].decode(*CODEC) for start, end in pairwise(edges)]

    def take(self, places: NDArray[np.intp]) -> "PackedStrings":
        """The strings at these places, in this order; what lies together is copied together."""
        starts, ends = self.offsets[places], self.offsets[places + 1]
        if not places.size:
            return PackedStrings.of(())
        breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
        firsts = starts[np.concatenate([[0], breaks])].tolist()
        lasts = ends[np.concatenate([breaks - 1, [places.size - 1]])].tolist()
        blob = np.concatenate([self.blob[first:last] for first, last in zip(firsts, lasts, strict=True)])
        return PackedStrings(blob, _offsets(ends - starts))

    def place_left(self, text: str) -> int:
        """Of sorted strings: how many are less than this one."""
        return bisect_left(range(len(self)), text.encode(*CODEC), key=self.bytes_of)

    def place_right(self, text: str) -> int:
        """Of sorted strings: how many are not greater than this one."""
        return bisect_right(range(len(self)), text.encode(*CODEC), key=self.bytes_of)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
