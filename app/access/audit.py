"""The audit log: one JSON object a line in `audit/audit.jsonl` of the data folder, only ever appended to.

A full file is renamed with the next number, and the oldest go when there are too many. Processes on one data folder
share the files. What is in a line: see docs/security.md; never a key, a query string, a header or a body.
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CURRENT = "audit.jsonl"
ROTATED = re.compile(r"audit-([0-9]{6,})\.jsonl")


class Audit:
    """Appends lines, and reads them backwards."""

    def __init__(self, folder: Path, limit_bytes: int, limit_files: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._limit_files = limit_files

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write entries at the end; they are with the operating system when this returns. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(one, ensure_ascii=True) + "\n" for one in entries).encode("ascii")
        # Shared by all who append: nobody may write to a file that somebody renames at this moment.
        with _lock(self.folder, fcntl.LOCK_SH):
            descriptor = os.open(self.folder / CURRENT, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lines = _end_of_torn_line(descriptor) + lines
                if os.write(descriptor, lines) < len(lines):  # the disk is full; the last line is torn
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        if size >= self._limit_bytes:
            self._rotate()

    def page(self, before: tuple[int, int] | None, limit: int) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
        """Entries, newest first, before a place (number of the file, of the line), and the place to go on from."""
        found: list[dict[str, Any]] = []
        for number, path in self._files():
            if before is not None and number > before[0]:
                continue
            try:
                lines = path.read_bytes().split(b"\n")[:-1]  # what has no end yet is being written
            except FileNotFoundError:  # renamed or dropped since
                continue
            end = before[1] if before is not None and number == before[0] else len(lines)
            for place in range(min(end, len(lines)) - 1, -1, -1):
                if len(found) == limit:
                    return found, (number, place + 1)
                if lines[place]:
                    found.append(_entry(lines[place]))
        return found, None

    def _files(self) -> list[tuple[int, Path]]:
        """Numbers and files, newest first; the current one will get the next number."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        numbers = sorted((int(match[1]) for match in map(ROTATED.fullmatch, names) if match), reverse=True)
        rotated = [(number, self.folder / f"audit-{number:06}.jsonl") for number in numbers]
        return [((numbers[0] if numbers else 0) + 1, self.folder / CURRENT), *rotated]

    def _rotate(self) -> None:
        with _lock(self.folder, fcntl.LOCK_EX):
            (number, current), *rotated = self._files()
            if not current.is_file() or current.stat().st_size < self._limit_bytes:
                return  # another process was quicker
            current.rename(self.folder / f"audit-{number:06}.jsonl")
            for _, path in rotated[max(0, self._limit_files - 2) :]:
                path.unlink(missing_ok=True)


def _end_of_torn_line(descriptor: int) -> bytes:
    """What ends a line that a full disk or a power cut has cut off, so that what follows is a line of its own."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": "unreadable", "bytes": len(line)}
    return entry


@contextmanager
def _lock(folder: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
