"""Maps that need nothing but the score itself, or its gradient.

Letters: G cells a side, M = G * G cells, S pixels a side.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.methods.explain.cells import BATCH, Attribution, Cells, Floats, Score

Gradient = Callable[[Floats], NDArray[np.floating]]
"""Pixels (n, 3, S, S) -> the gradient of each image's score, the same shape."""


def occlusion(score: Score, cells: Cells, window: int) -> Attribution:
    """How much the score falls when a window of cells is covered; a cell's value is the mean over its windows.

    Units:  of the score; positive = the score falls without the cell.
    Cost:   (G - window + 1)^2 + 2 images scored.

    Source: Zeiler, Fergus 2014, arXiv:1311.2901, occlusion sensitivity.
    """
    window = min(window, cells.grid)
    places = [(y, x) for y in range(cells.grid - window + 1) for x in range(cells.grid - window + 1)]
    present = np.ones((len(places) + 2, cells.grid, cells.grid), np.bool_)
    present[1] = False
    for number, (y, x) in enumerate(places, start=2):
        present[number, y : y + window, x : x + window] = False
    value, baseline_value, *without = cells.scores(score, present.reshape(len(present), -1))
    total, count = np.zeros((2, cells.grid, cells.grid))
    for (y, x), one in zip(places, without, strict=True):
        total[y : y + window, x : x + window] += value - one
        count[y : y + window, x : x + window] += 1
    return Attribution(total / count, float(value), float(baseline_value), len(present))


def integrated_gradients(
    score: Score, gradient: Gradient, image: Floats, baseline: Floats, cells: Cells, steps: int
) -> Attribution:
    """The gradient along the straight path from the baseline to the image, times the way gone.

    The values of all cells add up to score - baseline score, up to the error of `steps` midpoints.

    Shapes: image, baseline (3, S, S).
    Units:  of the score; positive = the cell's departure from the baseline raises it.
    Cost:   `steps` images differentiated, 2 scored.

    Source: Sundararajan, Taly, Yan 2017, arXiv:1703.01365; the integral by midpoints.
    """
    way = image - baseline
    shares = ((np.arange(steps) + 0.5) / steps).astype(np.float32)
    total = np.zeros(image.shape, np.float64)
    for start in range(0, steps, BATCH):
        path = baseline + shares[start : start + BATCH, None, None, None] * way
        total += gradient(path).sum(axis=0, dtype=np.float64)
    per_pixel = (total / steps * way).sum(axis=0)
    value, baseline_value = score(np.stack([image, baseline]))
    return Attribution(cells.sums(per_pixel), float(value), float(baseline_value), steps + 2)
