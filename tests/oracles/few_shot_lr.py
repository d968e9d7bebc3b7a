"""Distances to classes the slow, obvious way, in float64."""

from collections.abc import Sequence

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 1.0 - float(a @ b) / float(np.sqrt(a @ a) * np.sqrt(b @ b))


def depth_of(label: str, labels: Sequence[str], groups: Sequence[str | None], k: int) -> int:
    """How many neighbours are averaged in a class: what is left of it when its largest group is gone."""
    own = [place for place, one in enumerate(labels) if one == label]
    names = [groups[place] for place in own if groups[place] is not None]
    largest = max([names.count(name) for name in names], default=1)
    return max(1, min(k, len(own) - largest))


def score(
    vector: np.ndarray,
    vectors: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str | None],
    k: int,
    left_out: Sequence[int] = (),
) -> float:
    """The smallest over the classes of the mean distance to the nearest examples of the class."""
    best = np.inf
    for label in set(labels):
        depth = depth_of(label, labels, groups, k)
        near = sorted(
            cosine(vector, vectors[place]) for place, one in enumerate(labels) if one == label and place not in left_out
        )[:depth]
        if len(near) == depth:
            best = min(best, sum(near) / depth)
    return best


def calibration(vectors: np.ndarray, labels: Sequence[str], groups: Sequence[str | None], k: int) -> list[float]:
    """The same score for each example, itself and its group left out; none for a class of one image or one group."""
    scores = []
    for place, label in enumerate(labels):
        mates = [one for one, group in enumerate(groups) if group is not None and group == groups[place]]
        own = [one for one, other in enumerate(labels) if other == label]
        if set(own) <= {place, *mates}:
            continue
        scores.append(score(vectors[place], vectors, labels, groups, k, [place, *mates]))
    return scores
