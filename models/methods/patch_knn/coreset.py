"""Which patches to remember: those from which no patch of the bank lies far, chosen as the bank streams past."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index import Metric, VectorIndex, make_index
from index.distances import as_rows, distances_to_all, pair_distances

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Tick = Callable[[], None]

TICK_PICKS = 64
AHEAD = 32  # farthest rows whose products are taken at once: one pass over memory for all those picked soon
MEASURED_ERROR = 1e-5  # relative, of a squared distance as it is measured in float32


@dataclass(frozen=True, slots=True)
class Coreset:
    """Rows chosen from many, and how far the others lie from them."""

    chosen: Places
    """(m,) places of the rows chosen, in the order of choice."""
    nearest: Places
    """(n,) for each row the place in `chosen` of one nearest to it, the first chosen among equals."""
    distances: Floats
    """(n,) Euclidean distance of each row to that one."""

    @property
    def radius(self) -> float:
        """Distance of the row that lies farthest from all that were chosen."""
        return float(self.distances.max())


def greedy_coreset(rows: Floats, size: int, first: int, tick: Tick | None = None) -> Coreset:
    """Rows chosen one by one, always the one farthest from those chosen so far; rows equal to a chosen one never are.

    Shapes: rows (n, D), n >= 1, finite -> m <= size rows.
    Ties:   the lowest place.
    Memory: 170 n bytes beside the rows.
    Promise: the radius is at most twice that of any other choice of `size` points. The bits do not depend on how a
            matrix product is added up: it only names the rows that are then measured.

    Source: Gonzalez 1985 (farthest-first traversal); Roth et al. 2021 for its use on patches.
    """
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    lengths = np.sqrt(squares)
    roundings = (rows.shape[1] + 8) * 2.0**-24
    distances = distances_to_all(Metric.L2, rows[first], rows, None)
    nearest = np.zeros(len(rows), np.int64)
    chosen = [first]
    products: dict[int, Floats] = {}
    while len(chosen) < min(size, len(rows)):
        if tick is not None and len(chosen) % TICK_PICKS == 0:
            tick()
        place = int(distances.argmax())
        if distances[place] == 0.0:
            break
        if place not in products:
            farthest = np.append(np.argpartition(distances, -min(AHEAD, len(rows)))[-AHEAD:], place)
            products = dict(zip(farthest.tolist(), rows[farthest] @ rows.T, strict=True))
        # The product of float32 is off by no more than `slack`: rows that it puts farther off need no measuring.
        rough = squares + squares[place] - 2.0 * products.pop(place).astype(np.float64)
        slack = 2.0 * roundings * np.square(lengths + lengths[place])
        near = np.flatnonzero(rough - slack < np.square(distances.astype(np.float64)) * (1.0 + 4.0 * MEASURED_ERROR))
        found = pair_distances(Metric.L2, rows[place], rows[near])
        closer = found < distances[near]
        distances[near[closer]] = found[closer]
        nearest[near[closer]] = len(chosen)
        chosen.append(place)
    return Coreset(np.array(chosen, np.int64), nearest, distances)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is left of a stream of rows."""

    rows: Floats
    """(m, D)"""
    radius: float
    """No row of the stream lies farther than this from all of `rows`."""
    floor: float
    """No choice of as many points could have had a radius below this."""


class StreamingCoreset:
    """Rows come in pieces of any size; at most three times `size` of them are held, whatever their number.

    A row that lies within the current radius of one that is held is represented by it and dropped; the others are held
    until there are more than twice `size`, which are then reduced to `size` by the greedy choice, whose radius is the
    new one. Every held row carries a bound of the distance to whatever it represents, so the radius told in the end is
    proven, not estimated; a radius r of a reduction proves that no choice of `size` points covers better than r / 2.

    Time: one exact search for each row among at most 3 `size`; a reduction takes `size` passes over them.
    """

    def __init__(self, size: int, random: np.random.Generator, tick: Tick | None = None) -> None:
        self._size = size
        self._random = random
        self._tick = tick
        self._held: VectorIndex | None = None
        self._reach = np.zeros(0, np.float64)  # of each held row, to the farthest that it represents
        self._radius = 0.0
        self._floor = 0.0

    def __len__(self) -> int:
        return 0 if self._held is None else len(self._held)

    def add(self, rows: Floats) -> None:
        """Takes rows (n, D) in; the array is not kept.

        Raises:
            WidthMismatch, NotFinite: they are not of one width with those before, or not finite.
        """
        given = as_rows(rows, rows.shape[1] if self._held is None else self._held.width, what="patches")
        for start in range(0, len(given), self._size):
            self._add(given[start : start + self._size])

    def remembered(self) -> Remembered:
        """The `size` rows of the greedy choice among those held, or fewer where there are no more distinct ones.

        At least one row must have been taken in.
        """
        self._reduce()
        assert self._held is not None
        return Remembered(self._held.vectors(np.arange(len(self))), float(self._reach.max()), self._floor)

    def _add(self, rows: Floats) -> None:
        distinct: dict[bytes, int] = {}
        for place, row in enumerate(rows):
            distinct.setdefault(row.tobytes(), place)
        rows = rows[list(distinct.values())]  # an empty background is many equal patches
        if self._held is None:
            self._held = make_index("flat", width=rows.shape[1], metric=Metric.L2)
        else:
            found = self._held.search(rows, 1)
            distances = found.distances[:, 0].astype(np.float64)
            is_near = distances <= self._radius
            np.maximum.at(self._reach, found.ids[is_near, 0], distances[is_near])
            rows = rows[~is_near]
        self._held.add(np.arange(len(self), len(self) + len(rows)), rows)
        self._reach = np.append(self._reach, np.zeros(len(rows)))
        if len(self) > 2 * self._size:
            self._reduce()

    def _reduce(self) -> None:
        assert self._held is not None
        rows = self._held.vectors(np.arange(len(self)))
        found = greedy_coreset(rows, self._size, int(self._random.integers(len(rows))), self._tick)
        reach = np.zeros(len(found.chosen), np.float64)
        np.maximum.at(reach, found.nearest, found.distances.astype(np.float64) + self._reach)
        self._held = make_index("flat", width=rows.shape[1], metric=Metric.L2)
        self._held.add(np.arange(len(found.chosen)), rows[found.chosen])
        self._reach = reach
        self._radius = max(self._radius, found.radius)
        self._floor = max(self._floor, found.radius / 2.0)
