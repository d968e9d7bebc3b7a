"""Where Python looks for unreachable objects: not among those that importing and starting leave behind.

These are hundreds of thousands, and they stay as long as the process does. A full search through them finds nothing and
takes up to 0.3 s in which no thread goes on: several at a start, and then one every few seconds under load.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def made_to_stay() -> Iterator[None]:
    """No search while the block runs, nor ever among the objects that are there at its end.

    They are still freed when nothing refers to them any more, unless they refer to each other. So this is for what
    happens once in a process, and not for what is loaded and dropped again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
