"""A decoding worker with the faults that a C library might have: what the image says, happens to its process."""

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.decoding.tasks import TASKS, Answer, Task
from models.decoding.worker import run
from models.images import ImageLimits

COMMAND = (sys.executable, "-m", "tests.faults.broken_decoder")
MARK = b"oddity-fault:"
LIES: dict[str, Callable[[bytes], bytes]] = {
    "nan": lambda body: body[:-4] + struct.pack("<f", float("nan")),
    "huge": lambda body: body[:-4] + struct.pack("<f", 1e30),
    "short": lambda body: body[:-4],
}


def marked(image: bytes, fault: str) -> bytes:
    """An image with a fault after its end: `abort`, `segfault`, `sleep`, `hoard`, `raise`, `once:PATH`, or
    `nan`, `huge` or `short` for an answer that lies."""
    return image + MARK + fault.encode()


def breaking(task: Task) -> Task:
    """The task, with the fault that an image asks for."""

    def run_task(data: bytes, limits: ImageLimits, parameters: dict[str, Any]) -> Answer:
        fault = data.rpartition(MARK)[2].decode() if MARK in data else ""
        if fault == "abort":
            os.abort()
        elif fault == "segfault":
            ctypes.memset(0, 1, 1)
        elif fault == "sleep":
            time.sleep(3600)
        elif fault == "hoard":
            hoard = []
            while True:
                hoard.append(bytes(2**24))
        elif fault == "raise":
            raise ZeroDivisionError
        elif fault.startswith("once:") and not Path(fault[5:]).exists():
            Path(fault[5:]).touch()
            os.abort()
        facts, body = task(data, limits, parameters)
        return facts, LIES[fault](body) if fault in LIES else body

    return run_task


if __name__ == "__main__":
    run({name: breaking(task) for name, task in TASKS.items()}, int(sys.argv[1]), int(sys.argv[2]))
