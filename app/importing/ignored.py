"""Files that lie among images and are none of the caller's."""

_LEFT_BY_SYSTEMS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def is_ignored(name: str) -> bool:
    """Whether a file is none of the caller's: hidden, or left by an operating system."""
    return any(part.startswith(".") or part in _LEFT_BY_SYSTEMS for part in name.split("/"))
