"""Slow, obvious float64 nearest neighbours: plain loops over a dictionary, nothing shared with the code."""

import math


def distance(a, b, metric):
    a, b = [float(x) for x in a], [float(x) for x in b]
    if metric == "l2":
        return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    if not any(a) or not any(b):
        return 1.0
    length_a, length_b = math.hypot(*a), math.hypot(*b)
    return math.fsum((x / length_a - y / length_b) ** 2 for x, y in zip(a, b, strict=True)) / 2


def nearest(rows, query, k, metric):
    """(id, distance) of the k nearest of `rows`, a dictionary from id to vector; ties by lowest id."""
    return sorted(((distance(query, row, metric), i) for i, row in rows.items()))[:k]


def disagreement(rows, query, ids, distances, k, metric, tolerance):
    """None when the answer is right, else what is wrong with it.

    Two rows whose true distances differ by less than the tolerance may stand in either order.
    """
    expected = nearest(rows, query, k, metric)
    n = len(expected)
    if list(ids[n:]) != [-1] * (k - n) or any(d != math.inf for d in distances[n:]):
        return f"the tail after {n} rows must be -1 and inf; got {ids[n:]}, {distances[n:]}"
    if len(set(ids[:n])) != n or not set(ids[:n]) <= set(rows):
        return f"each neighbour must be one row of the index; got {ids[:n]}"
    for place, (true, i) in enumerate(expected):
        got, claimed = int(ids[place]), float(distances[place])
        if abs(claimed - true) > tolerance * max(1.0, true):
            return f"distance {place} must be {true}; got {claimed}"
        if got != i and abs(distance(query, rows[got], metric) - true) > tolerance * max(1.0, true):
            return f"neighbour {place} must be {i} at {true}; got {got}"
    ranked = list(zip((float(d) for d in distances[:n]), ids[:n], strict=True))
    if ranked != sorted(ranked):
        return f"the order must be by distance, then by id; got {ranked}"
    return None
