"""Mahalanobis distances the slow and obvious way, in float64."""

import numpy as np


def distance(x: np.ndarray, rows: np.ndarray, shrinkage: float) -> float:
    """sqrt((x - m)^T C^-1 (x - m)) with C = (1 - s) S + s tr(S)/D I, by loops and a solved system."""
    n, width = rows.shape
    mean = [sum(float(row[one]) for row in rows) / n for one in range(width)]
    covariance = np.zeros((width, width))
    for row in rows:
        for one in range(width):
            for other in range(width):
                covariance[one, other] += (float(row[one]) - mean[one]) * (float(row[other]) - mean[other]) / n
    level = sum(covariance[one, one] for one in range(width)) / width
    shrunk = (1 - shrinkage) * covariance + shrinkage * level * np.eye(width)
    away = np.array([float(x[one]) - mean[one] for one in range(width)])
    return float(np.sqrt(away @ np.linalg.solve(shrunk, away)))
