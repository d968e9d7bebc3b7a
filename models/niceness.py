"""Threads that stand back for others, so that short work is done before long work goes on.

Whoever holds Python's lock and has no processor holds up all threads of the process. Where decoders and the network
keep every processor busy, that is what happens to the threads which read requests and write answers.
"""

import os
import sys
import threading
from contextlib import suppress


def stand_back(niceness: int) -> None:
    """Let this thread, and all that it starts, have less of the processors by so many steps (0 to 19).

    On Linux only: elsewhere niceness belongs to processes, and all threads of this one would stand back.
    """
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(PermissionError):  # a sandbox without this call: then nobody stands back, and all goes on
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
