"""Slow, obvious float64 versions of the nearest-neighbour arithmetic: double loops, nothing shared with the
code."""

import math
from collections.abc import Sequence

import numpy as np


def distance(a, b, metric: str) -> float:
    a, b = [float(x) for x in a], [float(x) for x in b]
    if metric == "l2":
        return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    lengths = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    if lengths == 0:
        return 1.0
    return 1.0 - math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths


def mean_to_nearest(query, others, k: int, metric: str) -> float:
    nearest = sorted(distance(query, other, metric) for other in others)[:k]
    return math.fsum(nearest) / k


def weighed(plain: float, to_defect: float) -> float:
    if math.isinf(to_defect):
        return plain
    return plain * (1000.0 if to_defect == 0 else min(1000.0, max(1.0, plain / to_defect)))


def scores(queries, bank, k: int, metric: str, defects=()) -> np.ndarray:
    result = []
    for query in queries:
        to_defect = min((distance(query, defect, metric) for defect in defects), default=math.inf)
        result.append(weighed(mean_to_nearest(query, bank, k, metric), to_defect))
    return np.array(result)


def leave_one_out(bank, k: int, metric: str, groups: Sequence[str | None] = (), defects=()) -> np.ndarray:
    result = []
    for row, query in enumerate(bank):
        others = [
            other
            for place, other in enumerate(bank)
            if place != row and (not groups or groups[row] is None or groups[place] != groups[row])
        ]
        to_defect = min((distance(query, defect, metric) for defect in defects), default=math.inf)
        result.append(weighed(mean_to_nearest(query, others, k, metric), to_defect))
    return np.array(result)


def pooled(vectors, pooling: str) -> np.ndarray:
    rows = [[float(x) for x in row] for row in vectors]
    if pooling == "concat":
        return np.array([x for row in rows for x in row])
    columns = list(zip(*rows, strict=True))
    return np.array([max(c) if pooling == "max" else math.fsum(c) / len(c) for c in columns])
