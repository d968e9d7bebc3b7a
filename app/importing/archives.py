"""Images of a zip or tar, read straight from the archive: nothing is ever unpacked to disk.

Every limit is enforced on the bytes that come out, not on what a header promises. Links, devices, encrypted and sparse
entries are reported and not read.
"""

import bz2
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from app.errors import Conflict, Invalid, ServiceError, TooLarge
from app.importing.entries import (
    CHUNK_BYTES,
    ITEMS_LIMIT_BYTES,
    ITEMS_NAME,
    Entry,
    Limits,
    Source,
    plain_name,
    refuse_archive,
    refused,
    too_large,
)
from app.importing.ignored import is_ignored

# What no bomb needs and small archives of flat pictures do.
RATIO_FLOOR_BYTES = 16 * 2**20
HEADER_READ_MAX = 2**20  # of a tar: no honest header is longer
DIRECTORY_BYTES_EACH = 200  # of a zip: what an entry of the directory takes, names included
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
# What the standard library is known to raise on hostile bytes; a fault of ours still surfaces.
_FAILURES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RecursionError,
    OverflowError,
    zlib.error,
    struct.error,
)


def kind_of(path: Path) -> str:
    """zip, tar, tar.gz or tar.bz2, by what the file begins with. Raises Invalid for anything else."""
    with path.open("rb") as handle:
        start = handle.read(512)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start.startswith(b"BZh"):
        return "tar.bz2"
    if start[257:262] == b"ustar" or (len(start) == 512 and not any(start)):
        return "tar"
    raise Invalid("`archive` must be a zip, tar, tar.gz or tar.bz2; got something else.", "archive_unknown")


def open_archive(path: Path, limits: Limits) -> Source:
    """The files of an archive. Raises Invalid when it is none."""
    kind = kind_of(path)
    return _Zip(path, limits) if kind == "zip" else _Tar(path, kind, limits)


class _Tar:
    def __init__(self, path: Path, kind: str, limits: Limits) -> None:
        self._path = path
        self._kind = kind
        self._limits = limits

    def scan(self, check: Callable[[], None]) -> tuple[int, bytes | None]:
        count, items = 0, None
        for _, member, stream in self._members():
            check()
            if member.isdir():
                continue
            count += 1
            if member.isreg() and not member.issparse() and member.name.removeprefix("./") == ITEMS_NAME:
                items = _read_tar(stream, member, ITEMS_LIMIT_BYTES)
                count -= 1
        return count, items

    def entries(self, after: list[Any] | None, seen: Callable[[str], None]) -> Iterator[Entry]:
        for number, member, stream in self._members():
            if member.isdir():
                continue
            try:
                name = plain_name(member.name)
                if name == ITEMS_NAME:
                    continue
                seen(name)
                if after is not None and [number] <= after:
                    continue
                data = self._data(stream, member, name)
            except ServiceError as error:
                if after is None or [number] > after:
                    yield refused([number], member.name, error)
                continue
            yield Entry([number], name, data)

    def _data(self, stream: "_Forward", member: tarfile.TarInfo, name: str) -> bytes | None:
        if member.issym() or member.islnk():
            raise Conflict("A link is not followed.", "link_refused")
        if not member.isreg() or member.issparse():
            raise Conflict("Only plain files are read; this is a device, a pipe or a sparse file.", "device_refused")
        if is_ignored(name):
            return None
        if member.size > self._limits.file_bytes:
            raise too_large(member.size, self._limits)
        data = _read_tar(stream, member, self._limits.file_bytes)
        refuse_archive(data)
        return data

    def _members(self) -> Iterator[tuple[int, tarfile.TarInfo, "_Forward"]]:
        size = self._path.stat().st_size
        most = self._limits.unpacked_bytes
        if self._kind != "tar":
            most = min(most, max(RATIO_FLOOR_BYTES, int(self._limits.ratio * size)))
        number = 0
        try:
            with self._path.open("rb") as packed, _unpacking(packed, self._kind) as unpacked:
                stream = _Forward(unpacked, most, is_seekable=self._kind == "tar")
                tar = tarfile.TarFile(
                    fileobj=stream,  # type: ignore[arg-type]
                    encoding="utf-8",
                    errors="surrogateescape",
                )
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # one for each entry, kept for random access
                    number += 1
                    _check_count(number, self._limits)
                    yield number, member, stream
                if any(stream.last) or len(stream.last) != tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("its end mark is missing")
        except _FAILURES as error:
            raise Invalid(
                f"The archive is damaged or cut off after {number} entries: {error}.", "archive_damaged"
            ) from error


class _Forward:
    """Unpacked bytes for `tarfile`, counted, in one direction.

    A header that asks for more memory than any honest one, or points backwards, ends the reading.
    """

    def __init__(self, unpacked: IO[bytes], most: int, *, is_seekable: bool) -> None:
        self._unpacked = unpacked
        self._most = most
        self._is_seekable = is_seekable
        self._position = 0
        self._is_one_back = False
        self.last = b""  # what the latest read gave

    def tell(self) -> int:
        return self._position - self._is_one_back

    def seek(self, position: int) -> int:
        if position == self._position - 1 and self.last:  # how tarfile looks for the last byte of an entry
            self._is_one_back = True
            return position
        if position < self._position:
            raise tarfile.ReadError("an entry points backwards")
        self._is_one_back = False
        if self._is_seekable:
            self._unpacked.seek(position)
            self._position, self.last = position, b""
            self._check()
        while self._position < position and self._next(min(CHUNK_BYTES, position - self._position)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_READ_MAX:
            raise tarfile.ReadError("a header is longer than any should be")
        if self._is_one_back:
            self._is_one_back = False
            return self.last[-1:] + (self._next(size - 1) if size > 1 else b"")
        return self._next(size)

    def _next(self, size: int) -> bytes:
        self.last = self._unpacked.read(size)
        self._position += len(self.last)
        self._check()
        return self.last

    def _check(self) -> None:
        if self._position > self._most:
            raise _bomb(self._most)


class _Zip:
    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    def scan(self, check: Callable[[], None]) -> tuple[int, bytes | None]:
        count, items, unpacked = 0, None, 0
        with self._opened() as archive:
            _check_count(len(archive.filelist), self._limits)
            for info in archive.filelist:
                check()
                if info.is_dir():
                    continue
                count += 1
                unpacked += info.file_size
                if info.filename.removeprefix("./") == ITEMS_NAME:
                    items = self._read(archive, info, ITEMS_LIMIT_BYTES)
                    count -= 1
        most = min(
            self._limits.unpacked_bytes,
            max(RATIO_FLOOR_BYTES, int(self._limits.ratio * self._path.stat().st_size)),
        )
        if unpacked > most:
            raise _bomb(most)
        return count, items

    def entries(self, after: list[Any] | None, seen: Callable[[str], None]) -> Iterator[Entry]:
        with self._opened() as archive:
            for number, info in enumerate(archive.filelist):
                if info.is_dir():
                    continue
                try:
                    name = plain_name(info.orig_filename)
                    if name == ITEMS_NAME:
                        continue
                    seen(name)
                    if after is not None and [number] <= after:
                        continue
                    data = None if is_ignored(name) else self._image(archive, info)
                except ServiceError as error:
                    if after is None or [number] > after:
                        yield refused([number], info.orig_filename, error)
                    continue
                yield Entry([number], name, data)

    def _image(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        data = self._read(archive, info, self._limits.file_bytes)
        refuse_archive(data)
        return data

    def _read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise Conflict("A link is not followed.", "link_refused")
        if kind not in (0, stat.S_IFREG):
            raise Conflict("Only plain files are read; this is a device or a pipe.", "device_refused")
        if info.flag_bits & 0x2041:
            raise Conflict("An encrypted entry cannot be read.", "archive_encrypted")
        if info.compress_type not in ZIP_METHODS:
            raise Conflict(
                f"Packing method {info.compress_type} is not read; use deflate or none.", "archive_method_unknown"
            )
        if info.file_size > most:
            raise too_large(info.file_size, self._limits)
        if info.file_size > max(2**20, self._limits.ratio * info.compress_size):
            raise _bomb(int(self._limits.ratio * info.compress_size))
        data = bytearray()
        try:
            with archive.open(info) as packed:
                while chunk := packed.read(CHUNK_BYTES):
                    data += chunk
                    if len(data) > most:
                        raise too_large(len(data), self._limits)
        except (*_FAILURES, RuntimeError) as error:
            raise Invalid(f"The entry is damaged: {error}.", "archive_entry_damaged") from error
        if len(data) != info.file_size:
            raise Invalid("The entry is cut off.", "archive_entry_damaged")
        return bytes(data)

    def _opened(self) -> zipfile.ZipFile:
        directory_max = max(2**20, DIRECTORY_BYTES_EACH * self._limits.entries)
        handle = _Guarded(io.FileIO(self._path), directory_max)
        try:
            return _Owning(handle)
        except _FAILURES as error:
            handle.close()
            raise Invalid(f"The archive cannot be read: {error}.", "archive_damaged") from error


class _Guarded(io.BufferedReader):
    """A file for `zipfile`, which reads the directory at one go: no more of it than a limit."""

    def __init__(self, raw: io.FileIO, most: int) -> None:
        super().__init__(raw)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise zipfile.BadZipFile(f"its directory has {size} bytes, {self._most} are read at most")
        return super().read(self._most if size is None or size < 0 else size)


class _Owning(zipfile.ZipFile):
    """A zip that closes the file it was given."""

    def __init__(self, handle: io.BufferedReader) -> None:
        self._handle = handle
        super().__init__(handle)

    def close(self) -> None:
        super().close()
        self._handle.close()


def _unpacking(packed: IO[bytes], kind: str) -> IO[bytes]:
    if kind == "tar.gz":
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    if kind == "tar.bz2":
        return bz2.BZ2File(packed)
    return packed


def _read_tar(stream: _Forward, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:
        raise Invalid(f"{ITEMS_NAME} must have at most {most} bytes; got {member.size}.", "items_malformed")
    stream.seek(member.offset_data)
    data = bytearray()
    while len(data) < member.size:
        chunk = stream.read(min(CHUNK_BYTES, member.size - len(data)))
        if not chunk:
            raise tarfile.ReadError("an entry is cut off")
        data += chunk
    return bytes(data)


def _check_count(number: int, limits: Limits) -> None:
    if number > limits.entries:
        raise TooLarge(
            f"An archive must have at most {limits.entries} entries; got more. The setting "
            "ODDITY_IMPORT_LIMIT_ENTRIES raises that.",
            "archive_too_many_entries",
        )


def _bomb(most: int) -> TooLarge:
    return TooLarge(
        f"The archive must unpack to at most {most} bytes; got more. The settings ODDITY_IMPORT_LIMIT_RATIO and "
        "ODDITY_IMPORT_LIMIT_UNPACKED_BYTES raise that.",
        "archive_bomb",
    )
