"""How much memory this process may count on."""

import os
from pathlib import Path

from app.settings import Settings

# The kernel's limit for the control group, versions 2 and 1; a container's limit shows there and nowhere else.
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_bytes(limit_files: tuple[Path, ...] = LIMIT_FILES) -> int:
    """The machine's memory, or the container's limit where that is less."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [int(text) for path in limit_files if path.is_file() and (text := path.read_text().strip()).isdigit()]
    return min([whole, *limits])


def memory_for_collections(settings: Settings) -> int:
    """Bytes that a server keeps collections in: as set, or half of what there is."""
    return settings.memory_budget_bytes or memory_bytes() // 2


def memory_for_scorers(settings: Settings) -> int:
    """Bytes that a server keeps fitted scorers in: as set, or an eighth of what there is."""
    return settings.scorer_budget_bytes or memory_bytes() // 8
