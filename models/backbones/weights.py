"""Weights files to float32 arrays, and the digests that identify them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # rule-skip: no-pickle only its exception; torch unpickles nothing

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load

from models.errors import WeightsDamaged

_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 of names, shapes and values: equal for the same weights in any file format or order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(json.dumps([name, list(array.shape)]).encode())
        digest.update(array.data)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every floating point tensor of a safetensors or torch file, as float32.

    A torch file is read with `weights_only=True`: it can hold tensors and nothing that runs. Half precision
    is widened.

    Raises:
        WeightsDamaged: the file is neither, or is cut short.
    """
    try:
        if path.suffix == ".safetensors":
            # Read, not mapped: a file that is written over must not change the weights of a network that runs.
            loaded = load(path.read_bytes())
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        OSError,
    ) as error:
        raise WeightsDamaged(
            f"`weights` must be a whole safetensors file, or a torch file of tensors only; got {path}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(loaded, Mapping):
        raise WeightsDamaged(f"`weights` must hold tensors by name; got {type(loaded).__name__} in {path}.")
    return {
        str(name): tensor.detach().to(torch.float32).contiguous().numpy()
        for name, tensor in loaded.items()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    }


def checked_weights(
    tensors: Mapping[str, NDArray[np.float32]],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    backbone: str,
    source: str,
    spare: Iterable[str] = ("fc.weight", "fc.bias"),
) -> dict[str, NDArray[np.float32]]:
    """Exactly the tensors the backbone reads, in its order.

    Raises:
        WeightsDamaged: a tensor is absent, unknown, of another shape, or not finite.
    """
    expected = f"`weights` of backbone `{backbone}` must be those of torchvision's `{backbone}`"
    absent = [name for name in shapes if name not in tensors]
    unknown = sorted(set(tensors) - set(shapes) - set(spare))
    if absent or unknown:
        complaint = f"without {absent[0]}" if absent else f"with {unknown[0]}"
        raise WeightsDamaged(f"{expected}; got {source} {complaint} ({len(absent)} absent, {len(unknown)} unknown).")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise WeightsDamaged(f"{expected}; got {source} where {name} is {tensors[name].shape}, not {shape}.")
        if not np.isfinite(tensors[name]).all():
            raise WeightsDamaged(f"{expected}; got {source} where {name} is not finite.")
    return {name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in shapes}
