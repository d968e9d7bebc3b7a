"""Networks as named arrays and back: what a fitted scorer stores of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def arrays_of(net: nn.Module, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Copies of a network's parameters and buffers, each name behind the prefix."""
    return {f"{prefix}{name}": value.numpy().copy() for name, value in net.state_dict().items()}


def arrays_under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)}


def loaded(net: Net, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Net:
    """The network with the parameters that were stored under a prefix, ready to score: no gradients, eval mode."""
    net.load_state_dict({name: torch.from_numpy(one.copy()) for name, one in arrays_under(arrays, prefix).items()})
    return net.eval().requires_grad_(False)
