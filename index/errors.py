"""What can go wrong with vectors.

VectorIndexError
├── VectorsRefused            the caller's: the arrays cannot be used as sent
│   ├── WidthMismatch         wrong number of columns, or not two-dimensional
│   ├── CountMismatch         not one id per vector
│   ├── NotFinite             NaN, infinite, or too long to be squared in float32
│   ├── IdInvalid             an id that is negative or no whole number
│   └── CountOutOfRange       a wanted number (of neighbours, centres, threads) below one
├── IdTaken                   conflict: an id is there already, or twice in one call
├── IdUnknown                 conflict: an id is not there
├── KindUnknown               no index of that kind
└── SnapshotDamaged           ours: a file that is not what was written
"""


class VectorIndexError(Exception):
    """Everything this package raises on purpose."""


class VectorsRefused(VectorIndexError):
    """The arrays cannot be used as sent."""


class WidthMismatch(VectorsRefused):
    """Rows of another width, or not a two-dimensional array."""


class CountMismatch(VectorsRefused):
    """Not exactly one id per vector."""


class NotFinite(VectorsRefused):
    """A vector with NaN or infinity, or longer than float32 can square."""


class IdInvalid(VectorsRefused):
    """An id that is negative or not a whole number."""


class CountOutOfRange(VectorsRefused):
    """A wanted number below one."""


class IdTaken(VectorIndexError):
    """An id that is in the index already, or twice in one call."""


class IdUnknown(VectorIndexError):
    """An id that is not in the index."""


class KindUnknown(VectorIndexError):
    """No index of that kind exists."""


class SnapshotDamaged(VectorIndexError):
    """A snapshot that is cut short, altered, or no snapshot at all."""
