"""The head that is trained on vectors of the frozen network."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from index.distances import unit_rows
from models.principal_directions import principal_directions
from models.projection import Head
from models.training import linear


class HeadNetwork(nn.Module):
    """Unit rows to an embedding that is not at unit length yet: a residual layer that all share, then a linear map.

    It starts as the principal directions of what it will learn from, with a residual layer that adds nothing: the first
    step is taken from the frozen embedding, not from chance.
    """

    def __init__(self, rows: NDArray[np.float32], width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        width_in = rows.shape[1]
        self.map = linear(width_in, width, generator)
        directions = principal_directions(unit_rows(rows), width)
        known = len(directions.components)
        with torch.no_grad():
            self.map.weight.mul_(1e-2)  # directions that the rows do not span
            self.map.weight[:known] = torch.from_numpy(directions.components).float()
            self.map.bias.copy_(-(self.map.weight.double() @ torch.from_numpy(directions.mean)).float())
        self.into = self.back = None
        if hidden:
            self.into = linear(width_in, hidden, generator)
            self.back = linear(hidden, width_in, generator, bias=False)
            nn.init.zeros_(self.back.weight)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) at unit length -> (B, E)"""
        if self.into is not None and self.back is not None:
            rows = rows + self.back(torch.relu(self.into(rows)))
        found: Tensor = self.map(rows)
        return found

    def head(self) -> Head:
        """What was learnt, as plain matrices."""
        trunk = None
        if self.into is not None and self.back is not None:
            trunk = (_array(self.into.weight), _array(self.into.bias), _array(self.back.weight))
        return Head(_array(self.map.weight), _array(self.map.bias), trunk)


def _array(parameter: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = parameter.detach().numpy().copy()
    return found
