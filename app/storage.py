"""Image bytes as files named by their sha256, durable before the record mentions them.

The files lie in a folder, or in any store that fsspec reaches (`app.remote_storage`). Both promise the same: `write`
returns when the bytes and their names are safe, a name never holds half of its bytes, and writing what is there already
makes it young again, so that a collector leaves it alone.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from app.errors import BytesDamaged, NotFound

DIGEST_BYTES = hashlib.sha256().digest_size
IMAGES_LOCK = "images"  # shared by whoever writes images' bytes, held alone by the collector
WRITTEN_TOGETHER = 16  # files that are open at once, for each request that adds
PART = ".part-"  # begins the name of a file that is being written

Lock = Callable[[], AbstractContextManager[object]]


class Files(Protocol):
    """Named bytes; names are sha256 in hexadecimal digits. Safe for threads and for several processes."""

    def write(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Store each (name, bytes) durably, in place of other bytes of that name."""

    def read(self, name: str) -> bytes:
        """The bytes of this name. Raises FileNotFoundError."""

    def exists(self, name: str) -> bool:
        """Whether there are bytes of this name."""

    def names(self, start: str) -> Iterator[str]:
        """Every name that begins with these two digits."""

    def changed_at(self, name: str) -> datetime | None:
        """When the bytes were last written, in UTC; None when there are none."""

    def remove(self, name: str) -> None:
        """Delete the bytes of this name, if there are any."""

    def sweep(self, start: str, before: datetime) -> int:
        """How many unfinished files from before a moment were deleted, where names begin with these digits."""


class FolderFiles:
    """Files below one folder: `ab/abcdef…`.

    `write` returns only when the bytes and the folders that name them are on disk, so a record committed afterwards
    never points at a file that a power cut took away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)

    def path(self, name: str) -> Path:
        """Where the bytes of this name lie."""
        return self.folder / name[:2] / name

    def write(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Store each (name, bytes); folders are synced once for the whole batch."""
        targets = {self.path(name): data for name, data in items}  # of one name the last
        # Also where the file is there already: whoever is storing it may not have come to sync the folders yet.
        folders = {folder for target in targets for folder in (self.folder, target.parent)}
        for folder in folders:
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
        new = [(target, data) for target, data in targets.items() if not _is_renewed(target, data)]
        for start in range(0, len(new), WRITTEN_TOGETHER):
            _write(new[start : start + WRITTEN_TOGETHER])
        for folder in folders:
            _sync_folder(folder)

    def read(self, name: str) -> bytes:
        """The bytes of this name. Raises FileNotFoundError."""
        return self.path(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether there are bytes of this name."""
        return self.path(name).exists()

    def names(self, start: str) -> Iterator[str]:
        """Every name that begins with these two digits."""
        return (one for one in self._entries(start) if not one.startswith("."))

    def changed_at(self, name: str) -> datetime | None:
        """When the bytes were last written, in UTC; None when there are none."""
        return _changed_at(self.path(name))

    def remove(self, name: str) -> None:
        """Delete the bytes of this name, if there are any."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, start: str, before: datetime) -> int:
        """How many unfinished files from before a moment were deleted: a process was killed while it wrote them."""
        old = [
            path
            for one in self._entries(start)
            if one.startswith(PART)
            and (changed_at := _changed_at(path := self.folder / start / one)) is not None
            and changed_at < before
        ]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _entries(self, start: str) -> list[str]:
        try:
            return sorted(path.name for path in (self.folder / start).iterdir())
        except FileNotFoundError:
            return []


class ImageStore:
    """Images' bytes by their sha256, which is compared whenever they are read.

    `put` returns only when the bytes are durable. A file without a row is harmless; the collector takes it an hour
    later. `lock` is held while files are written: it keeps the collector out.
    """

    def __init__(self, files: Files, lock: Lock = nullcontext) -> None:
        self.files = files
        self._lock = lock

    def put(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Store each (sha256, bytes). What lies there damaged is mended."""
        with self._lock():
            self.files.write(items)

    def get(self, sha256: str) -> bytes:
        """The bytes with this hash. Raises NotFound, BytesDamaged."""
        try:
            data = self.files.read(sha256)
        except FileNotFoundError as error:
            raise NotFound(f"The bytes of image {sha256} are not in the image store.", "bytes_missing") from error
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise BytesDamaged(
                f"The stored bytes of image {sha256} are damaged: their sha256 is {found}. Send the image again."
            )
        return data

    def exists(self, sha256: str) -> bool:
        """Whether there are bytes with this hash."""
        return self.files.exists(sha256)


class Thumbnails:
    """Small copies by the sha256 of their originals, each behind a hash of its own; what is damaged is made anew."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def put(self, sha256: str, data: bytes) -> None:
        """Keep the small copy of an image."""
        self.files.write([(sha256, hashlib.sha256(data).digest() + data)])

    def get(self, sha256: str) -> bytes | None:
        """The small copy of an image; None when there is none, or a damaged one."""
        try:
            kept = self.files.read(sha256)
        except FileNotFoundError:
            return None
        data = kept[DIGEST_BYTES:]
        return data if hashlib.sha256(data).digest() == kept[:DIGEST_BYTES] else None


def _is_renewed(target: Path, data: bytes) -> bool:
    """Whether these very bytes are there already; their file is young again then."""
    try:
        if target.read_bytes() != data:
            return False
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def _write(files: Sequence[tuple[Path, bytes]]) -> None:
    """Make these files with all of their bytes on disk, or leave none of those behind that have no name yet.

    All are on their way to the disk before the first is waited for, so that it takes them in one go. Threads that wait
    for one each take several times as much of the processor, and longer.
    """
    with ExitStack() as unfinished, ExitStack() as opened:
        parts = []
        for target, data in files:
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=PART)
            unfinished.callback(Path(name).unlink, missing_ok=True)
            part = opened.enter_context(open(descriptor, "wb"))  # noqa: PTH123 - it is open already
            part.write(data)
            part.flush()
            _send_off(descriptor)
            parts.append((descriptor, Path(name), target))
        for descriptor, _, _ in parts:
            os.fsync(descriptor)
        for _, part_path, target in parts:
            part_path.rename(target)
        unfinished.pop_all()


def _send_off(descriptor: int) -> None:
    """Have the system begin to write a file out, without waiting for it; where it does not, `fsync` will."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # not every file system takes advice
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _changed_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
