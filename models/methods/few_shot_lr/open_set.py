"""Near none of the classes? A distance to the nearest class, and the same distance for examples left out of theirs.

Letters: Q queries, N examples, C classes, k_j neighbours looked at in class j.

The score of an image is its distance to the nearest class,

    s(x) = min over classes j of  (mean distance of x to the k_j nearest examples of class j)

with 1 - cos as distance and k_j = min(k, images of class j without its largest group), at least 1. An example's
calibration score is the same number with itself and its group left out.

Why its p-value (`models.judging`) may be trusted. Call S_i the calibration scores, and R_i what they would be with the
new image put among the examples of its true class. An added example can only lower a mean of the k_j smallest
distances, and a minimum of such means: R_i <= S_i. So at least as many S_i as R_i reach the new image's score, and the
p-value computed is at least the one among R_1 ... R_n, R_new.

* If the examples and the new image were drawn alike, class included, these n + 1 numbers are exchangeable, and
  P(p <= a) <= a, whatever the classes look like.
* If instead each class was filled to a fixed number K and the new image is of any of the C classes with equal chance,
  the promise holds up to a term of order 1/n: the new image is exchangeable with the K of its own class only, and
  averaging over classes puts it among C (K + 1) numbers where n = C K are compared with.
* Within one class nothing is promised: pooled over classes, a class that varies more than the others is called unknown
  more often than a, a uniform one less often.

An example without another in its class (or all of one group) has nothing left to be compared with, and no calibration
score. Its class is still recognised.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CALIBRATION_ROWS = 2000
"""Most examples that calibrate the verdict, those with the smallest keys."""

_CELLS = 2**22  # distances looked at at once: bounds the memory


def cosine_distances(vector: NDArray[np.float32], units: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 - cos from one unit vector, or from each of several, to each of N unit vectors.

    Shapes: vector (D,) or (Q, D), units (N, D) -> (N,) or (Q, N), in [0, 2].
    """
    found: NDArray[np.float32] = np.clip(np.float32(1.0) - vector @ units.T, np.float32(0.0), np.float32(2.0))
    return found


class ClassDistances:
    """Distances to classes from distances to examples, for examples in order of their class."""

    def __init__(self, classes: NDArray[np.int64], groups: Sequence[str | None], k: int) -> None:
        """Shapes: classes (N,) ascending from 0 to C - 1, groups N names or None."""
        self.sizes = np.bincount(classes)
        self.groups = _numbered(groups)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.units = np.zeros(self.sizes.size, np.int64)
        """(C,) how many images or groups of images a class consists of."""
        self.depths = np.ones(self.sizes.size, np.int64)
        """(C,) the k_j above."""
        for number, (start, size) in enumerate(zip(self._starts, self.sizes, strict=True)):
            _, together = np.unique(self.groups[start : start + size], return_counts=True)
            self.units[number] = together.size
            self.depths[number] = max(1, min(k, size - together.max()))
        pairs = np.stack([self.sizes, self.depths], axis=1)
        # Classes of one size and depth are computed together.
        self._alike = [
            (np.flatnonzero((pairs == pair).all(axis=1)), int(pair[0]), int(pair[1]))
            for pair in np.unique(pairs, axis=0)
        ]

    def to_classes(self, distances: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean distance to the k_j nearest examples of each class.

        Shapes: distances (Q, N), inf where an example must not count -> (Q, C), inf where too few are left.
        Order:  nearest first, added one by one in float64: never smaller when a distance grows.
        """
        found = np.empty((distances.shape[0], self.sizes.size))
        for members, size, depth in self._alike:
            columns = self._starts[members][:, None] + np.arange(size)
            near = distances[:, columns]
            if depth < size:
                near = np.partition(near, depth - 1, axis=2)[:, :, :depth]
            near = np.sort(near, axis=2)
            total = np.zeros(near.shape[:2])
            for place in range(depth):
                total += near[:, :, place]
            found[:, members] = total / depth
        return found

    def nearest_class(self, distances: NDArray[np.float32]) -> NDArray[np.int64]:
        """Places of the k_j examples over which the distance to the nearest class is the mean.

        Shapes: distances (N,), as in `to_classes` -> (k_j,).
        """
        number = int(self.to_classes(distances[None])[0].argmin())
        start = self._starts[number]
        own = distances[start : start + self.sizes[number]]
        places: NDArray[np.int64] = start + np.argsort(own, kind="stable")[: self.depths[number]]
        return places

    def calibration(
        self, units: NDArray[np.float32], classes: NDArray[np.int64], keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows that calibrate, those with the smallest keys, and their scores without themselves and their group.

        Shapes: units (N, D), classes (N,), keys (N,) -> (n,), (n,), n at most 2,000.
        """
        able = np.flatnonzero(self.units[classes] > 1)
        chosen = np.sort(able[np.argsort(keys[able], kind="stable")[:CALIBRATION_ROWS]])
        scores = np.empty(chosen.size, np.float32)
        at_once = max(1, _CELLS // max(1, classes.size))
        for start in range(0, chosen.size, at_once):
            rows = chosen[start : start + at_once]
            distances = cosine_distances(units[rows], units)
            distances[self.groups[rows][:, None] == self.groups[None, :]] = np.inf
            scores[start : start + at_once] = self.to_classes(distances).min(axis=1)
        return chosen, scores


def _numbered(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """A number for each image, equal within a group; images without one stand alone."""
    numbers: dict[str, int] = {}
    alone = len(groups)
    codes = np.empty(len(groups), np.int64)
    for place, group in enumerate(groups):
        codes[place] = alone + place if group is None else numbers.setdefault(group, len(numbers))
    return codes
