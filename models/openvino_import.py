"""The one place that imports openvino, so that it tells nobody.

OpenVINO's package sends an event to Google Analytics at its import and at conversions, through its dependency
openvino_telemetry and without asking, and keeps a client id in ~/intel. Where that package cannot be imported it takes
a stand-in that does nothing; so it is made one that cannot.
"""

import sys
from typing import Any

modules: dict[str, Any] = sys.modules
modules.setdefault("openvino_telemetry", None)  # Python's own sign for what cannot be imported

import openvino  # noqa: E402 - not before that
from openvino import opset13  # noqa: E402

__all__ = ["openvino", "opset13"]
