"""Patch features, farthest-first choice and patch scores as loops in float64."""

import numpy as np


def neighbourhood_mean(cells: np.ndarray, side: int) -> np.ndarray:
    height, width, channels = cells.shape
    found = np.zeros((height, width, channels))
    for y in range(height):
        for x in range(width):
            inside = [
                cells[v, u].astype(np.float64)
                for v in range(y - side // 2, y + side // 2 + 1)
                for u in range(x - side // 2, x + side // 2 + 1)
                if 0 <= v < height and 0 <= u < width
            ]
            found[y, x] = sum(inside) / len(inside)
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))))


def farthest_first(rows: np.ndarray, size: int, first: int) -> tuple[list[int], float]:
    """The places chosen, and the radius they leave."""
    chosen = [first]
    while True:
        gaps = [min(distance(row, rows[one]) for one in chosen) for row in rows]
        if len(chosen) == min(size, len(rows)) or max(gaps) == 0.0:
            return chosen, max(gaps)
        chosen.append(gaps.index(max(gaps)))


def patch_scores(rows: np.ndarray, memory: np.ndarray, k: int) -> list[float]:
    return [float(np.mean(sorted(distance(row, one) for one in memory)[:k])) for row in rows]
