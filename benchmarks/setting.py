"""On what a figure was measured: command, machine, commit, versions."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.runtime import library_versions

REPOSITORY = Path(__file__).resolve().parent.parent


def setting() -> dict[str, Any]:
    """Everything that a reader of a figure needs to repeat it, except the data."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.platform(),
        },
        "versions": {
            "oddity": version("oddity"),
            "python": platform.python_version(),
            "faiss-cpu": version("faiss-cpu"),
            "scikit-learn": version("scikit-learn"),
            **library_versions(),
        },
    }


def commit() -> str | None:
    """The commit of this copy, with `+changes` where files differ from it; None outside a repository."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The processor as the system names it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    asked = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
