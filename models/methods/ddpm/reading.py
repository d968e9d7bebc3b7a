"""What is noised of an image: its vector turned on the bank's principal axes, or its pixels at 32 x 32."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from models.contract import Inputs
from models.errors import ParameterInvalid
from models.held_out import stacked_vectors

SIDE = 32  # pixels of a reduced image's side


class Source(StrEnum):
    """What is noised."""

    VECTORS = "vectors"
    PIXELS = "pixels"


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Rows as the network sees them: centred, of variance 1 on average, vectors along their principal axes."""

    mean: NDArray[np.float64]
    """(D,)"""
    scale: float
    axes: NDArray[np.float64] | None
    """(D, D) orthonormal rows; None for pixels."""
    variances: NDArray[np.float64]
    """Along the axes, (D,), mean 1; () for pixels."""

    def of(self, rows: NDArray[np.float32]) -> Tensor:
        """(B, D) -> (B, D) or (B, 3, 32, 32), float64; each row by itself."""
        centred = (rows.astype(np.float64) - self.mean) / self.scale
        if self.axes is None:
            return torch.from_numpy(centred).reshape(-1, 3, SIDE, SIDE)
        turned = np.zeros_like(centred)
        for number, row in enumerate(centred):
            turned[number] = self.axes @ row
        return torch.from_numpy(turned)


def coordinates(rows: NDArray[np.float32], source: Source) -> Coordinates:
    """The coordinates in which these rows have mean 0 and average variance 1; small variances are shrunk upwards.

    Shapes: rows (N, D), N >= 2, not all equal.
    Memory: 24 D^2 bytes for vectors.

    Source: Ledoit, Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    exact = rows.astype(np.float64)
    mean = exact.mean(axis=0)
    scale = float(np.sqrt(np.square(exact - mean).mean()))
    if source is Source.PIXELS:
        return Coordinates(mean, scale, None, np.ones(()))
    centred = (exact - mean) / scale
    share = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    found, axes = eigh(centred.T @ centred / len(centred))
    shrunk = np.maximum((1 - share) * found.clip(min=0) + share, 1e-6)
    return Coordinates(mean, scale, axes.T.copy(), shrunk)


def read(inputs: Inputs, source: Source, method: str, width: int | None = None) -> NDArray[np.float32]:
    """Vectors, or reduced pixels in one row an image; (B, D).

    Raises:
        ParameterInvalid: they are not given.
        WidthMismatch, NotFinite: they are not of this width, or not finite.
    """
    if source is Source.VECTORS:
        return stacked_vectors([inputs], method=method, width=width)
    if inputs.pixels is None:
        raise ParameterInvalid(f"`pixels` of the inputs of method `{method}` must be given; got none.")
    # One image at a time, so that its mates have no say in the last bit.
    reduced = [
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(image.copy()), SIDE).flatten().numpy()
        for image in inputs.pixels
    ]
    flat = np.stack(reduced) if reduced else np.zeros((0, 3 * SIDE * SIDE), np.float32)
    return stacked_vectors([Inputs(ids=inputs.ids, vectors=flat)], method=method, width=width)
