"""The process-wide settings of torch, made in one place."""

import threading
from dataclasses import dataclass, field
from importlib.metadata import version

import torch

from models.errors import ParameterInvalid

_in_this_thread = threading.local()


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """How vectors were computed, kept with each batch of them; not part of an embedding's identity."""

    engine: str  # "torch"
    precision: str  # "float32"
    threads: int
    versions: dict[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """The record as plain JSON values."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "threads": self.threads,
            "versions": dict(sorted(self.versions.items())),
        }


def configure_torch(threads: int) -> None:
    """Give torch its threads and nothing that varies between runs.

    Raises:
        ParameterInvalid: `threads` is not from 1 to 1024.
    """
    if not 1 <= threads <= 1024:
        raise ParameterInvalid(f"`threads` of the network must be from 1 to 1024; got {threads}.")
    use_threads(threads)
    # Autotuning picks a convolution by timing it, so two runs may differ in the last bit.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # Lower-precision shortcuts would leave the record's "float32" untrue.
    torch.set_float32_matmul_precision("highest")


def use_threads(threads: int) -> None:
    """Make the calling thread compute with this many; OpenMP keeps the number per calling thread."""
    if getattr(_in_this_thread, "threads", None) != threads:
        torch.set_num_threads(threads)
        _in_this_thread.threads = threads


def library_versions() -> dict[str, str]:
    """Versions of the libraries that touch pixels or vectors, by package name."""
    return {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
