"""Where and how often Python looks for unreachable objects: not among those that importing and starting leave behind.

These are hundreds of thousands, and they stay as long as the process does. A full search through them finds nothing and
takes up to 0.3 s in which no thread goes on: several at a start, and then one every few seconds under load.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SEARCH_AFTER = 5000  # objects more than there were, as some dozens of requests leave


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


def search_seldom() -> None:
    """Search the newest objects after thousands of them: Python's 700 come with every few requests.

    Each search looks at the objects of all requests in flight, and took a twelfth of the event loop's time.
    """
    gc.set_threshold(SEARCH_AFTER, *gc.get_threshold()[1:])
