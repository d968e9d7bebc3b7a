"""The one place that imports torchvision.

torchvision's wheel imports only where its compiled operators load. Beside a torch build it was not compiled
for (a CPU-only torch with the registry's torchvision, for instance) they do not, and the import stops with
"operator torchvision::nms does not exist": its Python half registers shape functions for two operators nobody
declared. Declaring their schemas first cures that. Nothing here calls either operator: they belong to
detection, and only the ResNet definitions are used.

The real operators are tried first, so that a healthy torchvision is imported exactly as it is.
"""

import importlib
import sys
from types import ModuleType

import torch

from models.garbage import made_to_stay

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# Held for the life of the process: the declarations vanish with the library object.
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """The torchvision package, with its own operators or, where those do not load, with declared schemas.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision stops for another reason than its missing operators.
    """
    if "torchvision" in sys.modules:
        return importlib.import_module("torchvision")
    with made_to_stay():
        return _imported()


def operators_are_declared() -> bool:
    """True where the schemas had to be declared because torchvision's own operators did not load."""
    return _library is not None


def _imported() -> ModuleType:
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _library is not None or "torchvision::" not in str(error):
            raise
    # The failed attempt leaves half of the package behind; the second must begin afresh.
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            _library.define(schema)  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")
