"""How many threads a search may use; apart from FAISS, so that setting it at start does not load FAISS."""

from index.distances import as_count

_threads: int | None = None


def set_threads(threads: int) -> None:
    """Sets how many threads a FAISS call may use, in whichever thread it is made.

    Raises:
        CountOutOfRange: below one.
    """
    global _threads
    _threads = as_count(threads, what="threads")


def threads() -> int | None:
    """The number set, None where FAISS decides."""
    return _threads
