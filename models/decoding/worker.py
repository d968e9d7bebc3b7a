"""A process that decodes images and nothing else: `python -m models.decoding.worker`, its standard input a socket.

Whatever an image does to it, a crash of a C library, an allocation beyond its limit, a loop without end, ends this
process and not the server. It ends with the server too, however that ends: the kernel kills it.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from models.decoding.tasks import TASKS, Answer, Task
from models.decoding.wire import packed, read_message
from models.errors import ImageTooLarge, InputError
from models.images import ImageLimits

PR_SET_PDEATHSIG = 1
KEPT_BYTES = 96 * 2**20  # resident; beyond it, what a large image has left is given back
LIBC = ctypes.CDLL(None, use_errno=True)


def run(tasks: Mapping[str, Task], server: int, memory_bytes: int) -> None:
    """Answer until the server closes the line. It is the process with this id; the memory is beyond today's."""
    if not end_with(server):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one in good order
    limit_memory(memory_bytes)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as line, line.makefile("rb") as reader:
        assert isinstance(reader, BufferedReader)
        line.sendall(b"".join(packed({"ready": os.getpid()}, b"")))
        while (message := read_message(reader)) is not None:
            facts, body = _answer(tasks, *message)
            del message
            for part in packed(facts, body):
                line.sendall(part)
            del part, body
            give_back()


def _answer(tasks: Mapping[str, Task], question: dict[str, Any], data: bytes) -> Answer:
    try:
        return tasks[question["task"]](data, ImageLimits(**question["limits"]), question["parameters"])
    except InputError as error:
        return {"error": type(error).__name__, "detail": str(error)}, b""
    except MemoryError:
        return {"error": ImageTooLarge.__name__, "detail": "`image` must fit into memory when decoded."}, b""


def end_with(server: int) -> bool:
    """Have the kernel kill this process when the thread that started it ends; whether the server is still there.

    Elsewhere than on Linux the closed line ends it, once the image that it has is done.
    """
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == server


def give_back() -> None:
    """Let the system have the memory that a large image took: the allocator would keep it for the next one.

    Only where the allocator is GNU's.
    """
    if not hasattr(LIBC, "malloc_trim"):
        return
    if int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() > KEPT_BYTES:
        LIBC.malloc_trim(0)


def limit_memory(more_bytes: int) -> None:
    """Let this process leave no core files and, on Linux, allocate so many bytes beyond what it has now.

    Where the whole machine runs short, the kernel is to take this process first.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":  # which alone counts what RLIMIT_DATA should
        return
    status = Path("/proc/self/status").read_text()
    now = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + more_bytes, now + more_bytes))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    run(TASKS, int(sys.argv[1]), int(sys.argv[2]))
