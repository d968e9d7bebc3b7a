"""Images of a folder on this machine, below one that the operator allowed.

The walk holds on to open folders and never follows a link, so that nothing changed meanwhile can lead it elsewhere.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.errors import Conflict, Invalid, NotFound, ServiceError
from app.importing.entries import (
    ITEMS_LIMIT_BYTES,
    ITEMS_NAME,
    Entry,
    Limits,
    plain_name,
    refuse_archive,
    refused,
    too_large,
)
from app.importing.ignored import is_ignored

DEPTH_MAX = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold the job up


def allowed_folder(given: str, allowed: Sequence[Path]) -> Path:
    """The real path of a folder to import. Raises Conflict where the operator has not allowed it, NotFound."""
    if not allowed:
        raise Conflict(
            "This service reads no folders of its machine. The operator allows some with the setting "
            "ODDITY_IMPORT_FOLDERS; or send a zip or tar as `archive`.",
            "folder_not_allowed",
        )
    if "\0" in given or not Path(given).is_absolute():
        raise Invalid("`folder` must be an absolute path.", "folder_not_absolute")
    real = Path(os.path.realpath(given))
    if not any(real.is_relative_to(os.path.realpath(one)) for one in allowed):
        raise Conflict(
            "`folder` must lie below one that the operator allowed with the setting ODDITY_IMPORT_FOLDERS; got "
            f"{given}.",
            "folder_not_allowed",
        )
    if not real.is_dir():
        raise NotFound(f"There is no folder {given}.", "folder_unknown")
    return real


class Folder:
    """The files of a folder and of those below it, in order of their names as bytes."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    def scan(self, check: Callable[[], None]) -> tuple[int, bytes | None]:
        """How many files there are, and the bytes of the items file."""
        count, items = 0, None
        for place, raw, folder in self._walk():
            check()
            if len(place) == 1 and raw == ITEMS_NAME:
                items = self._read(folder, raw, ITEMS_LIMIT_BYTES)
            else:
                count += 1
        return count, items

    def entries(self, after: list[Any] | None, seen: Callable[[str], None]) -> Iterator[Entry]:
        """The files behind a place, in order."""
        for place, raw, folder in self._walk():
            path = "/".join(_name(part) for part in place)
            try:
                name = plain_name(path)
                if name == ITEMS_NAME:
                    continue
                seen(name)
                if after is not None and place <= after:
                    continue
                data = None if is_ignored(name) else self._read(folder, raw, self._limits.file_bytes)
                if data is not None:
                    refuse_archive(data)
            except ServiceError as error:
                if after is None or place > after:
                    yield refused(place, path, error)
                continue
            yield Entry(place, name, data)

    def _walk(self) -> Iterator[tuple[list[str], str, int]]:
        try:
            root = os.open(self._path, _FOLDER)
        except OSError as error:
            raise Conflict(f"The folder cannot be read: {error.strerror}.", "folder_unreadable") from error
        with _open_folder(root):
            yield from self._below(root, [])

    def _below(self, folder: int, place: list[str]) -> Iterator[tuple[list[str], str, int]]:
        """Each file that is no folder: its place, its name and the open folder it lies in."""
        for raw in sorted(os.listdir(folder), key=os.fsencode):
            here = [*place, os.fsencode(raw).decode("latin-1")]  # sorts as the bytes do, and is always text
            try:
                inner = os.open(raw, _FOLDER, dir_fd=folder) if len(here) < DEPTH_MAX else None
            except OSError:  # no folder, a link, or one that may not be read: reading it as a file says which
                inner = None
            if inner is None:
                yield here, raw, folder
                continue
            with _open_folder(inner):
                yield from self._below(inner, here)

    def _read(self, folder: int, raw: str, most: int) -> bytes:
        try:
            kind = os.stat(raw, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(kind):
                raise Conflict("A link is not followed.", "link_refused")
            if not stat.S_ISREG(kind):
                raise Conflict(
                    "Only plain files are read; this is a device, a pipe, or a folder that cannot be opened.",
                    "device_refused",
                )
            with os.fdopen(os.open(raw, _FILE, dir_fd=folder), "rb") as handle:
                facts = os.fstat(handle.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    raise Conflict("The file was replaced while it was read.", "file_changed")
                if facts.st_size > most:
                    raise too_large(facts.st_size, self._limits)
                data = handle.read(most + 1)
        except OSError as error:
            raise Conflict(f"The file cannot be read: {error.strerror}.", "file_unreadable") from error
        if len(data) > most:
            raise too_large(len(data), self._limits)
        return data


def _name(place: str) -> str:
    return os.fsdecode(place.encode("latin-1"))


@contextmanager
def _open_folder(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
