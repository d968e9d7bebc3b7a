"""The file of a snapshot: a plain tar of which every byte is known beforehand, so that any damage shows.

    manifest.json      format, counts, settings, embedding, and name, size and sha256 of the members before the images
    manifest.sha256    of manifest.json
    images.jsonl       one image a line, in order of arrival
    vectors.f32        (images, width) little-endian float32, in the same order
    groups.jsonl       one registered set a line, members by their number in images.jsonl
    feedback.jsonl     one judgement a line
    bank.json …        a compressed bank, if there is one, with its arrays
    files.txt          sha256 and size of each image's bytes, unless they were left out
    images/<sha256>    those bytes, in that order

Headers are the same for the same name and size, padding is zeros, and nothing follows the two blocks that end the
archive. A reader compares all of that and the hashes, and names the place that differs.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from app.errors import Invalid

FORMAT = 3  # that is written
FORMATS = (1, 2, FORMAT)  # that are read
MANIFEST = "manifest.json"
MANIFEST_LIMIT_BYTES = 2**20
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
CHUNK_BYTES = 2**20


class TapeWriter:
    """Writes members one after the other; `close` ends the archive and makes it durable under its name."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = target.with_suffix(".part")
        self._handle = self._part.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, name: str, source: IO[bytes], size: int, check: Callable[[], None]) -> str:
        """Copy a member of this size; returns the sha256 of its content. `check` may stop it between two pieces."""
        self._write(header(name, size))
        digest = hashlib.sha256()
        left = size
        while left:
            check()
            chunk = source.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise ValueError(f"{name} has fewer bytes than {size}")
            digest.update(chunk)
            self._write(chunk)
            left -= len(chunk)
        self._write(bytes(-size % BLOCK))
        return digest.hexdigest()

    def close(self) -> str:
        """The sha256 of the whole file, which now bears its name and survives a power cut."""
        self._write(END)
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        self._part.rename(self._target)
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Delete what has been written, unless it was closed."""
        self._handle.close()
        self._part.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._handle.write(data)
        self._digest.update(data)
        self.size += len(data)


class TapeReader:
    """Reads members in order, and refuses the first byte that is not what it must be."""

    def __init__(self, handle: IO[bytes], check: Callable[[], None]) -> None:
        self._handle = handle
        self._check = check
        self.position = 0

    def size_of_first(self) -> int:
        """The size of the manifest, which only its header tells. Raises Invalid when this is no snapshot."""
        block = self._handle.read(BLOCK)
        self._handle.seek(-len(block), io.SEEK_CUR)
        try:
            size = tarfile.TarInfo.frombuf(block, "utf-8", "strict").size
        except (tarfile.TarError, ValueError) as error:
            raise Invalid(
                "This is no snapshot: it does not begin with the header of its manifest.", "no_snapshot"
            ) from error
        if not 0 < size <= MANIFEST_LIMIT_BYTES:
            raise Invalid(
                f"The manifest must have at most {MANIFEST_LIMIT_BYTES} bytes; its header says {size}.",
                "snapshot_damaged",
            )
        return size

    def pieces(self, name: str, size: int, sha256: str | None) -> Iterator[bytes]:
        """The content of the next member, which must be this one; its hash is compared when the last piece is read."""
        self._expect(header(name, size), f"the header of {name}")
        digest = hashlib.sha256()
        left = size
        while left:
            self._check()
            chunk = self._read(min(CHUNK_BYTES, left), name)
            digest.update(chunk)
            left -= len(chunk)
            if not left:
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise self._damaged(f"the content of {name}, whose sha256 must be {sha256}")
                self._expect(bytes(-size % BLOCK), f"the zeros after {name}")
            yield chunk
        if not size and sha256 is not None and digest.hexdigest() != sha256:
            raise self._damaged(f"the sha256 of {name}, which is empty")

    def whole(self, name: str, size: int, sha256: str | None) -> bytes:
        """The content of the next member, in memory."""
        return b"".join(self.pieces(name, size, sha256))

    def end(self) -> None:
        """Raise Invalid unless the archive ends here."""
        self._expect(END, "the end mark")
        if self._handle.read(1):
            raise self._damaged("what follows the end mark, where nothing must")

    def _expect(self, wanted: bytes, what: str) -> None:
        got = self._read(len(wanted), what) if wanted else b""
        if got != wanted:
            raise self._damaged(what)

    def _read(self, size: int, what: str) -> bytes:
        data = self._handle.read(size)
        self.position += len(data)
        if len(data) != size:
            raise Invalid(
                f"The snapshot ends at byte {self.position}, within {what}; it was cut off.", "snapshot_damaged"
            )
        return data

    def _damaged(self, what: str) -> Invalid:
        return Invalid(
            f"The snapshot is damaged before byte {self.position}: {what}. Nothing was restored.", "snapshot_damaged"
        )


def sha256_of(content: Path | IO[bytes]) -> str:
    """The sha256 of a file."""
    if isinstance(content, Path):
        with content.open("rb") as handle:
            return sha256_of(handle)
    return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]


def header(name: str, size: int) -> bytes:
    """The one header that a member of this name and size has."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def checked_manifest(reader: TapeReader, parse: Callable[[bytes], Any]) -> Any:
    """The manifest, after its own hash was compared. Raises Invalid."""
    data = reader.whole(MANIFEST, reader.size_of_first(), None)
    wanted = f"{hashlib.sha256(data).hexdigest()}\n".encode()
    given = reader.whole("manifest.sha256", len(wanted), None)
    if given != wanted:
        raise Invalid(
            f"The snapshot is damaged before byte {reader.position}: manifest.json and manifest.sha256 do not agree. "
            "Nothing was restored.",
            "snapshot_damaged",
        )
    return parse(data)
