"""The state of a fitted scorer as bytes: arrays in safetensors, plain values as JSON in its header.

Nothing in such a file is code, so a state from a stranger can at worst give wrong numbers. The bytes are the
same for the same state, and whoever keeps them keeps their sha256 beside them: a state that was damaged on
its way is refused before anything is built from it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.contract import FittedState
from models.errors import MethodIncomplete, StateDamaged

FORMAT = 1
_HEADER = "oddity"
_KINDS = frozenset(
    ["bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)


def state_bytes(method: str, state: FittedState) -> bytes:
    """The state of a fitted scorer of `method`, as bytes that `read_state` reads.

    Raises:
        MethodIncomplete: the state holds something that is neither an array of numbers nor plain JSON.
    """
    try:
        header = json.dumps(
            {"format": FORMAT, "method": method, "values": dict(state.values)}, sort_keys=True, allow_nan=False
        )
        is_same = json.loads(header)["values"] == dict(state.values)
    except (TypeError, ValueError) as error:
        raise MethodIncomplete(f"`values` of the state of `{method}` must be what JSON can hold; {error}.") from error
    if not is_same:
        raise MethodIncomplete(f"`values` of the state of `{method}` must come back from JSON as they went in.")
    return save({name: _checked(method, name, array) for name, array in state.arrays.items()}, {_HEADER: header})


def read_state(data: bytes, *, method: str, sha256: str) -> FittedState:
    """The state that was written, its arrays read-only.

    Raises:
        StateDamaged: the bytes are not those with this sha256, or not the state of this method.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise StateDamaged(f"The state of `{method}` must have SHA-256 {sha256}; got {found}. Fit the scorer again.")
    try:
        arrays: Mapping[str, NDArray[Any]] = load(data)
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_HEADER])
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise StateDamaged(f"The state of `{method}` must be safetensors with a header of ours; {error!r}.") from error
    if not isinstance(header, dict) or not isinstance(header.get("values"), dict):
        raise StateDamaged(f"The state of `{method}` must have a header of ours; got another. Fit the scorer again.")
    if header.get("format") != FORMAT or header.get("method") != method:
        raise StateDamaged(
            f"The state must be of method `{method}`, format {FORMAT}; got {header.get('method')!r}, format "
            f"{header.get('format')!r}. Fit the scorer again."
        )
    for array in arrays.values():
        array.flags.writeable = False
    return FittedState(arrays=arrays, values=header["values"])


def _checked(method: str, name: str, array: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.name not in _KINDS:
        kind = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise MethodIncomplete(f"`{name}` of the state of `{method}` must be an array of plain numbers; got {kind}.")
    return np.ascontiguousarray(array).reshape(array.shape)  # which makes a row of a scalar
