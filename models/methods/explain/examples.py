"""Explanation by example: which stored images of each class are most like this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index import Neighbours

Search = Callable[[NDArray[np.float32], int, NDArray[np.int64]], Neighbours]
"""Vectors (1, D), k, the ids that are allowed -> the k nearest of them, exactly."""

FIRST_LOOK = 64  # nearest examples looked at to find the nearest classes; four times as many when they do not do


@dataclass(frozen=True, slots=True)
class ClassExamples:
    """The examples of one class that are nearest to an image, nearest first."""

    label: str
    ids: NDArray[np.int64]
    """(n,)"""
    distances: NDArray[np.float32]
    """(n,)"""


def nearest_of_classes(
    search: Search, vector: NDArray[np.float32], classes: Mapping[str, NDArray[np.int64]], *, each: int, most: int
) -> list[ClassExamples]:
    """The `each` nearest examples of the `most` nearest classes, the class with the nearest example first.

    Shapes: vector (D,), label -> ids of its examples, ascending.
    Ties:   as `search` orders them.
    Cost:   a search among all examples, and one among those of each class shown.
    """
    classes = {label: ids for label, ids in classes.items() if ids.size}
    wanted = min(most, len(classes))
    if not wanted or not each:
        return []
    everybody = np.sort(np.concatenate(list(classes.values())))
    label_of = {int(one): label for label, ids in classes.items() for one in ids}
    k = min(FIRST_LOOK, everybody.size)
    while True:
        near = [int(one) for one in search(vector[None], k, everybody).ids[0] if one >= 0]
        labels = list(dict.fromkeys(label_of[one] for one in near))[:wanted]
        if len(labels) == wanted or k == everybody.size:
            break
        k = min(4 * k, everybody.size)
    found = []
    for label in labels:
        nearest = search(vector[None], min(each, classes[label].size), classes[label])
        there = nearest.ids[0] >= 0
        found.append(ClassExamples(label, nearest.ids[0][there], nearest.distances[0][there]))
    return found
