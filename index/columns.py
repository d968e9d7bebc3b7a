"""Arrays that grow and shrink at their end; large ones lie in a file, as page cache."""

import logging
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROWTH = 1.5
SCRATCH_MIN_BYTES = 64 << 20  # smaller columns stay in anonymous memory

log = logging.getLogger("oddity.index")

_folder: Path | None = None


def set_scratch_folder(folder: Path | None) -> None:
    """Sets where large columns of rows lie from now on; None: in anonymous memory.

    Their files have no name, so nothing is left after the process, however it ends. What they hold counts as page
    cache: the system writes it out and takes its memory back when it needs some.

    Raises:
        OSError: no file can be made there.
    """
    global _folder
    if folder is not None:
        with tempfile.TemporaryFile(dir=folder):
            pass
    _folder = folder


class _ScratchFile:
    """A file without a name, all of whose blocks are claimed before they are mapped."""

    def __init__(self, folder: Path) -> None:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self.handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.handle)
        self.mapping: mmap.mmap | None = None

    def mapped(self, n_bytes: int) -> mmap.mmap:
        """The first so many bytes; mappings given out before show the same bytes and stay usable.

        Raises:
            OSError: the disk is full. Without the claim, writing to the mapping would end the process.
        """
        os.posix_fallocate(self.handle, 0, n_bytes)
        if self.mapping is None or len(self.mapping) < n_bytes:
            self.mapping = mmap.mmap(self.handle, n_bytes)
        return self.mapping

    def write(self, data: bytes, offset: int) -> None:
        """Writes what every mapping then shows; the room was claimed before."""
        left = memoryview(data)
        while left:
            written = os.pwrite(self.handle, left, offset)
            left, offset = left[written:], offset + written

    def release(self, first: int) -> None:
        """Gives back the blocks from this byte on; the file keeps its length, so that older mappings stay usable.

        Raises:
            OSError: the file system cannot.
        """
        first += -first % mmap.PAGESIZE
        if self.mapping is not None and first < len(self.mapping):
            self.mapping.madvise(mmap.MADV_REMOVE, first, len(self.mapping) - first)


class Column:
    """An array that grows and shrinks at its end in amortised constant time per row.

    A view of it may be read while the column changes: it then shows older or newer values, never memory that is gone.
    """

    def __init__(self, empty: NDArray[Any]) -> None:
        self._buffer = empty
        self._length = len(empty)
        self._file: _ScratchFile | None = None
        self._lent = 0  # rows that lie in somebody else's file, mapped so that what is written stays here ...
        self._overwritten = 0  # ... and how many times one of them was
        self._row_bytes = empty.dtype.itemsize * int(np.prod(empty.shape[1:], dtype=np.int64))

    @property
    def values(self) -> NDArray[Any]:
        """What is stored; a view, valid until the next change."""
        return self._buffer[: self._length]

    @property
    def capacity(self) -> int:
        return len(self._buffer)

    @property
    def reserved_bytes(self) -> int:
        """Bytes of anonymous memory."""
        if self._lent:
            return self._row_bytes * (max(0, self._length - self._lent) + min(self._overwritten, self._lent))
        return 0 if self._file is not None else self._buffer.nbytes

    @property
    def mapped_bytes(self) -> int:
        """Bytes of the file."""
        if self._lent:
            return self._lent * self._row_bytes
        return self._buffer.nbytes if self._file is not None else 0

    def reserve(self, extra: int) -> None:
        needed = self._length + extra
        if needed > self.capacity:
            # Fresh pages cost no memory until they are written, so a generous step is cheap.
            self._move(max(needed, int(self.capacity * GROWTH)))

    def append(self, values: NDArray[Any]) -> None:
        self.reserve(len(values))
        self._buffer[self._length : self._length + len(values)] = values
        self._length += len(values)

    def extend(self, n: int) -> NDArray[Any]:
        """Room for n more values, now counted as stored, for the caller to fill; a view."""
        self.reserve(n)
        self._length += n
        return self._buffer[self._length - n : self._length]

    def extend_from(self, n: int, blocks: Iterable[bytes]) -> None:
        """Store n more values, whose bytes come in blocks; after an error of theirs it is the caller's to cut back.

        Into a file they are written, which takes a quarter of the time of touching each page of its mapping first.
        """
        self.reserve(n)
        at = self._length * self._row_bytes
        self._length += n
        target = None if self._file is not None else self._buffer.reshape(-1).view(np.uint8)
        for block in blocks:
            if target is not None:
                target[at : at + len(block)] = np.frombuffer(block, np.uint8)
            elif self._file is not None:
                self._file.write(block, at)
            at += len(block)

    def is_large(self, n: int) -> bool:
        """Whether so many values belong in a file."""
        return _folder is not None and n * self._row_bytes >= SCRATCH_MIN_BYTES

    def borrow(self, lent: NDArray[Any], n: int) -> None:
        """Be the first n of these values, whose rest is room to grow into; only for a column that holds none.

        Nothing is copied: `lent` is a private mapping of a file, and pages that are written to become memory.
        """
        self._buffer, self._length, self._file = lent, n, None
        self._lent, self._overwritten = n, 0

    def move(self, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """Copy the values at some places over those at others."""
        self._buffer[targets] = self._buffer[sources]
        self._overwritten += len(targets)

    def cut(self, length: int) -> None:
        """Keep the first `length` values; give memory back once less than half is used."""
        self._length = length
        if length * 2 < (self._lent or self.capacity):
            self._move(length)

    def trim(self) -> None:
        """Give back what is reserved and not used; room that was lent costs nothing."""
        if self._length < self.capacity and not self._lent:
            self._move(self._length)

    def _move(self, capacity: int) -> None:
        n_bytes = capacity * self._row_bytes
        # Half the limit for a column that is in a file already: at the limit it would go to and fro.
        if _folder is not None and n_bytes >= SCRATCH_MIN_BYTES // (1 if self._file is None else 2):
            try:
                self._move_to_file(_folder, capacity, n_bytes)
                return
            except OSError as error:
                log.warning("scratch file of %d bytes not possible, rows stay in memory: %s", n_bytes, error)
        buffer = np.empty((capacity, *self._buffer.shape[1:]), dtype=self._buffer.dtype)
        buffer[: self._length] = self.values
        self._buffer, self._file, self._lent = buffer, None, 0

    def _move_to_file(self, folder: Path, capacity: int, n_bytes: int) -> None:
        file = self._file or _ScratchFile(folder)
        if capacity < self.capacity and file is self._file:
            try:
                file.release(n_bytes)
            except OSError:  # a file system without holes
                file = _ScratchFile(folder)
        mapping = file.mapped(n_bytes)
        shape = (capacity, *self._buffer.shape[1:])
        buffer: NDArray[Any] = np.ndarray(shape, self._buffer.dtype, buffer=mapping)
        if file is not self._file:
            buffer[: self._length] = self.values
        self._buffer, self._file, self._lent = buffer, file, 0
