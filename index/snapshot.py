"""Named arrays and facts as one file, so that a start need not read every vector from the record.

Layout: 8 bytes of magic, of which the last is the version; the length of the header (8 bytes, little-endian); the
header (JSON, padded with spaces); the sha256 of all this (32 bytes); then each array, filled up with zeros so that
it and the next start at a multiple of 64. The header holds of each array its type, shape, offset and the sha256 of
its bytes with the filling. So no byte of the file is unchecked, and nothing in it is code.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from index.errors import SnapshotDamaged

MAGIC = b"ODDITYX2"
HEADER_MAX_BYTES = 1 << 28
PARTIAL_SUFFIX = ".partial"

_ALIGNMENT = 64
_HASH_BYTES = 32
_BLOCK_BYTES = 1 << 22
_KINDS = "?biufcSUmM"  # no objects: those would be code


class Blocks:
    """An array that is written block after block, so that it need never be in memory as a whole.

    Shapes: the blocks, one after the other along their first axis, are `shape`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, blocks: Iterable[NDArray[Any]]) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.blocks = blocks


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any] | Blocks], facts: Mapping[str, Any]) -> int:
    """Bytes of the file that now stands at `path`, in place of any earlier one.

    The file is written beside, synced and renamed, and then its folder is synced: after a crash at any moment either
    the old or the new one is whole. A cut-short attempt leaves only `<name>.partial`, which the next one overwrites.

    Facts:  what JSON can hold, without NaN.
    Memory: beside the arrays as given, one block.

    Raises:
        ValueError: an array of objects, blocks that are not what they were said to be, or facts that JSON cannot hold.
    """
    parts = {
        name: array if isinstance(array, Blocks) else Blocks(np.shape(array), np.asarray(array).dtype, (array,))
        for name, array in arrays.items()
    }
    for name, part in parts.items():
        if part.dtype.kind not in _KINDS:
            raise ValueError(f"`{name}` must be an array of numbers or text; got {part.dtype}.")
    blank = dict.fromkeys(parts, "0" * 2 * _HASH_BYTES)  # as long as the hashes, which are known at the end
    length = len(_front(parts, blank, facts))
    hashes = {}
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open("wb") as file:
        file.write(b"\0" * length)
        for name, part in parts.items():
            hashes[name] = _write(file, name, part)
        size = file.tell()
        file.seek(0)
        file.write(_front(parts, hashes, facts))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(path.parent)
    return size


def open_arrays(path: Path) -> "ArraysFile":
    """The file at `path`, whose header is checked; its arrays are checked as they are asked for.

    Raises:
        SnapshotDamaged: the header is altered, of another version or of no such file, or the file is cut or longer.
        FileNotFoundError: there is no file.
    """
    file = path.open("rb", buffering=0)
    with ExitStack() as undo:
        undo.callback(file.close)
        opened = ArraysFile(file, path.name)
        undo.pop_all()
    return opened


@dataclass(frozen=True, slots=True)
class _Place:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    sha256: str


class StoredArray:
    """One array of a file. What is handed out has been checked against its sha256.

    The methods raise SnapshotDamaged when the bytes are not those that were written.
    """

    def __init__(self, file: "ArraysFile", name: str, place: _Place) -> None:
        self._file = file
        self._name = name
        self._place = place
        self._checked = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._place.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._place.shape

    def __len__(self) -> int:
        return self._place.shape[0]

    def verify(self) -> None:
        """Reads every byte once."""
        if not self._checked:
            for _ in self.blocks():
                pass

    def view(self) -> NDArray[Any]:
        """The array on the mapped file, not to be written to; costs no memory beside the page cache."""
        self.verify()
        return self._file.array_at(self._place.offset, self._place.dtype, self._place.shape)

    def private(self) -> NDArray[Any]:
        """The array on a mapping of its own, to be written to: a page that is changed becomes memory of this process.

        It is longer than `shape`, by half as many rows where so much follows in the file: what stands there is of other
        arrays, and may be written over likewise.
        """
        self.verify()
        return self._file.private_at(self._place.offset, self._place.dtype, self._place.shape)

    def read(self) -> NDArray[Any]:
        """A copy in memory."""
        out = np.empty(self._place.shape, dtype=self._place.dtype)
        self.read_into(out)
        return out

    def read_into(self, out: NDArray[Any]) -> None:
        """Fills `out`, C-ordered and of the same type and shape, in one pass; after an error it holds anything."""
        if out.dtype != self.dtype or out.shape != self.shape or not out.flags.c_contiguous:
            raise ValueError(f"`out` must be {self.dtype} of shape {self.shape}; got {out.dtype} of {out.shape}.")
        target = out.reshape(-1).view(np.uint8)
        start = 0
        for block in self.blocks():
            target[start : start + len(block)] = np.frombuffer(block, np.uint8)
            start += len(block)

    def blocks(self) -> Iterator[bytes]:
        """Its bytes one after the other, once; that they are not those that were written shows only at the end."""
        digest = hashlib.sha256()
        start, end = self._place.offset, self._place.offset + self._place.n_bytes
        while start < end:
            block = self._file.read_at(start, min(end - start, _BLOCK_BYTES), self._name)
            digest.update(block)
            start += len(block)
            yield block
        digest.update(self._file.read_at(end, _aligned(self._place.n_bytes) - self._place.n_bytes, self._name))
        self._compare(digest.hexdigest())

    def _compare(self, got: str) -> None:
        if got != self._place.sha256:
            raise SnapshotDamaged(
                f"`{self._name}` of `{self._file.name}` must have the sha256 {self._place.sha256}; got {got}."
            )
        self._checked = True


class ArraysFile(Mapping[str, StoredArray]):
    """The arrays of a file by their names, its facts, and its digest: the sha256 of the header, which holds all others.

    Threads may read different arrays at the same time. Views stay usable after `close`.
    """

    def __init__(self, file: FileIO, name: str) -> None:
        self._file = file
        self.name = name
        self._mapping: mmap.mmap | None = None
        self.facts, self.digest, places, end = self._read_front()
        self._size = os.fstat(file.fileno()).st_size
        if self._size != end:
            raise SnapshotDamaged(f"`{name}` must have {end} bytes; got {self._size}.")
        self._arrays = {of: StoredArray(self, of, place) for of, place in places.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> StoredArray:
        """The array of that name.

        Raises:
            SnapshotDamaged: there is none.
        """
        if name not in self._arrays:
            raise SnapshotDamaged(f"`{self.name}` must hold `{name}`; it does not.")
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def under(self, prefix: str) -> dict[str, StoredArray]:
        """The arrays whose names start with this, by the rest of their names."""
        return {name[len(prefix) :]: array for name, array in self._arrays.items() if name.startswith(prefix)}

    def verify(self) -> None:
        """Reads every byte of every array.

        Raises:
            SnapshotDamaged: one is not what was written.
        """
        for array in self._arrays.values():
            array.verify()

    def close(self) -> None:
        self._file.close()

    def read_at(self, offset: int, n_bytes: int, what: str) -> bytes:
        block = os.pread(self._file.fileno(), n_bytes, offset) if n_bytes else b""
        if n_bytes and not block:
            raise SnapshotDamaged(f"`{what}` of `{self.name}` must be whole; the file ends early.")
        return block

    def array_at(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if self._mapping is None:
            self._mapping = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray(shape, dtype, buffer=self._mapping, offset=offset)

    def private_at(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        rows = min(shape[0] + shape[0] // 2, (self._size - offset) // row_bytes)
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = offset - start + rows * row_bytes
        mapping = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_COPY, offset=start)
        return np.ndarray((rows, *shape[1:]), dtype, buffer=mapping, offset=offset - start)

    def _read_front(self) -> tuple[dict[str, Any], str, dict[str, _Place], int]:
        start = self._file.read(len(MAGIC) + 8)
        length = int.from_bytes(start[len(MAGIC) :], "little")
        if start[: len(MAGIC) - 1] != MAGIC[:-1] or len(start) != len(MAGIC) + 8 or length > HEADER_MAX_BYTES:
            raise SnapshotDamaged(f"`{self.name}` must start as a snapshot does; got {start!r}.")
        if start[: len(MAGIC)] != MAGIC:
            version = start[len(MAGIC) - 1 : len(MAGIC)]
            raise SnapshotDamaged(f"`{self.name}` must be a snapshot of version {MAGIC[-1:]!r}; got {version!r}.")
        text, told = self._file.read(length), self._file.read(_HASH_BYTES)
        if hashlib.sha256(start + text).digest() != told:
            raise SnapshotDamaged(f"`{self.name}` must have the header that was written; it was altered.")
        header = json.loads(text)
        places = {}
        offset = self._file.tell()
        for one in header["arrays"]:
            dtype, shape = np.dtype(one["dtype"]), tuple(one["shape"])
            n_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            places[one["name"]] = _Place(dtype, shape, offset, n_bytes, one["sha256"])
            offset += _aligned(n_bytes)
        return header["facts"], told.hex(), places, offset


def _aligned(n_bytes: int) -> int:
    return n_bytes + -n_bytes % _ALIGNMENT


def _front(parts: Mapping[str, Blocks], hashes: Mapping[str, str], facts: Mapping[str, Any]) -> bytes:
    arrays = [
        {"name": name, "dtype": part.dtype.str, "shape": list(part.shape), "sha256": hashes[name]}
        for name, part in parts.items()
    ]
    text = json.dumps({"arrays": arrays, "facts": facts}, allow_nan=False).encode()
    text += b" " * (-(len(MAGIC) + 8 + len(text) + _HASH_BYTES) % _ALIGNMENT)
    front = MAGIC + len(text).to_bytes(8, "little") + text
    return front + hashlib.sha256(front).digest()


def _write(file: BinaryIO, name: str, part: Blocks) -> str:
    """The sha256 of what was written."""
    digest = hashlib.sha256()
    n_bytes = 0
    for block in part.blocks:
        given = np.asarray(block)
        if given.dtype != part.dtype or given.shape[1:] != part.shape[1:]:
            raise ValueError(
                f"Blocks of `{name}` must be {part.dtype}, {part.shape}; got {given.dtype}, {given.shape}."
            )
        flat = np.ascontiguousarray(given).reshape(-1).view(np.uint8)
        for start in range(0, len(flat), _BLOCK_BYTES):
            some = flat[start : start + _BLOCK_BYTES]
            digest.update(some.data)
            file.write(some.data)
        n_bytes += len(flat)
    if n_bytes != part.dtype.itemsize * int(np.prod(part.shape, dtype=np.int64)):
        raise ValueError(f"Blocks of `{name}` must be {part.shape} together; got {n_bytes} bytes.")
    filling = b"\0" * (-n_bytes % _ALIGNMENT)
    digest.update(filling)
    file.write(filling)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
