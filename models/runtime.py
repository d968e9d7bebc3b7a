"""The process-wide settings of the libraries that compute, made in one place."""

import platform
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

from models.errors import ParameterInvalid

CPU_FACTS = Path("/proc/cpuinfo")
_in_this_thread = threading.local()


COMPARABLE = "float32"  # vectors of this name may be mixed: float32, and whatever passed the gate against it


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """How vectors were computed, kept with each batch of them; not part of an embedding's identity."""

    engine: str  # openvino | torch | cuda
    precision: str  # float32 | bf16 | int8
    threads: int
    versions: dict[str, str] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)  # as read back from the engine
    processor: str = ""
    comparable_with: str = COMPARABLE  # vectors of equal names may be compared

    def describe(self) -> dict[str, object]:
        """The record as plain JSON values."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "threads": self.threads,
            "versions": dict(sorted(self.versions.items())),
            "hints": dict(sorted(self.hints.items())),
            "processor": self.processor,
            "comparable_with": self.comparable_with,
        }


def configure_libraries(threads: int) -> None:
    """Give torch its threads, numpy's matrix products one thread, and neither anything that varies between runs.

    Raises:
        ParameterInvalid: `threads` is not from 1 to 1024.
    """
    if not 1 <= threads <= 1024:
        raise ParameterInvalid(f"`threads` of the network must be from 1 to 1024; got {threads}.")
    use_threads(threads)
    # Autotuning picks a convolution by timing it, so two runs may differ in the last bit.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # Lower-precision shortcuts would leave the record's "float32" untrue; cuDNN's is on unless told.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    # Requests and jobs run beside each other already. A thread of OpenBLAS goes on turning in circles for some 25 ms
    # after each product, on a core that others need, and the last bits of a product hang on how many threads share it.
    # FAISS's own OpenBLAS has no such threads: it takes those of OpenMP, which torch shares.
    ThreadpoolController().select(threading_layer="pthreads").limit(limits=1)


def use_threads(threads: int) -> None:
    """Make the calling thread compute with this many; OpenMP keeps the number per calling thread."""
    if getattr(_in_this_thread, "threads", None) != threads:
        torch.set_num_threads(threads)
        _in_this_thread.threads = threads


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that touch pixels or vectors, by package name; one that is absent is left out."""
    found: dict[str, str] = {}
    for name in ("torch", "torchvision", "openvino", "numpy", "pillow"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def processor_name() -> str:
    """The processor as it names itself, with the machine's architecture."""
    name = platform.processor()
    with suppress(OSError):  # not Linux
        for line in CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2]
                break
    return f"{name.strip() or 'unknown'} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
