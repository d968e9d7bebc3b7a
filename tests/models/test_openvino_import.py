"""OpenVINO is used without its telemetry."""

import os
import subprocess
import sys
from pathlib import Path

from models.openvino_import import openvino
from tests.rules.source_tree import ROOT

ASK = "import models.openvino_import; from openvino.tools.ovc import telemetry_utils as one; print(one.tm.__name__)"


def test_importing_it_tells_nobody(tmp_path: Path) -> None:
    # As on a person's machine: OpenVINO is silent by itself where it takes the machine for a build server.
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    told = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert told.stdout.decode().strip() == "openvino.tools.ovc.telemetry_stub"
    assert not list(tmp_path.iterdir()), "no client id is kept"
    assert openvino.get_version()
