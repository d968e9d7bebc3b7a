"""What is measured once on a machine and kept in a file of JSON."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def kept(path: Path | None, read: Callable[[Any], T], measure: Callable[[], T], plain: Callable[[T], Any]) -> T:
    """What was measured before and written to this file; else measured now and written. None keeps nothing.

    `read` makes it of plain values and raises ValueError or TypeError where they are not those that `plain` gave.
    """
    if path is None:
        return measure()
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # absent, or not what was written
        found = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(plain(found)), encoding="utf-8")
    part.replace(path)
    return found
