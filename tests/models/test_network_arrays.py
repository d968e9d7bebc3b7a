"""Networks as named arrays: the names that fitted files hold, copies, and back."""

import numpy as np
import pytest
import torch
from torch import nn

from models.float32 import as_float32
from models.network_arrays import arrays_of, arrays_under, loaded
from models.training import mlp, seeded


def test_names_are_those_of_the_state_behind_the_prefix_and_arrays_are_copies() -> None:
    net = mlp([3, 4, 2], seeded(0))
    arrays = arrays_of(net, "net.")
    assert set(arrays) == {f"net.{name}" for name in net.state_dict()}
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert all(np.abs(one).sum() > 0 for name, one in arrays.items() if name.endswith("weight"))


def test_a_stored_network_comes_back_among_other_arrays() -> None:
    net, other = mlp([3, 4, 2], seeded(0)), mlp([3, 4, 2], seeded(1))
    arrays = {**arrays_of(net, "net."), "network": np.zeros(3), "mean": np.ones(3)}
    back = loaded(other, arrays, "net.")
    rows = torch.ones(2, 3)
    assert back is other and not back.training
    assert torch.equal(back(rows), net(rows))
    assert not any(one.requires_grad for one in back.parameters())
    arrays["net.0.weight"][:] = 0  # what was loaded is its own
    assert torch.equal(back(rows), net(rows))


def test_a_missing_or_strange_array_is_an_error() -> None:
    arrays = arrays_of(nn.Linear(2, 2), "net.")
    assert set(arrays_under(arrays, "net.")) == {"weight", "bias"}
    del arrays["net.bias"]
    with pytest.raises(RuntimeError, match="bias"):
        loaded(nn.Linear(2, 2), arrays, "net.")


def test_what_float32_cannot_hold_is_its_largest() -> None:
    assert as_float32(np.array([1e300, -1e300, 1.5])).tolist() == [
        float(np.finfo(np.float32).max), float(np.finfo(np.float32).min), 1.5,
    ]  # fmt: skip
