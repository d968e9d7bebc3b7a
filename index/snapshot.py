"""An index as one file, so that a start need not read every vector from the record.

Layout: 8 bytes of magic, the length of the header (4 bytes, little-endian), the header (JSON, padded with
spaces so that the ids start at a multiple of 64), the sha256 of all this (32 bytes), then the ids (int64) and
the rows (float32, as added) in ascending order of id, both little-endian. The header holds the sha256 of ids
and rows: no byte of the file is unchecked, and nothing in it is code.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from index.contract import Metric, VectorIndex
from index.errors import SnapshotDamaged, VectorIndexError
from index.factory import Kind, make_index

MAGIC = b"ODDITYX1"
HEADER_MAX_BYTES = 4096
PARTIAL_SUFFIX = ".partial"

_ALIGNMENT = 64
_HASH_BYTES = 32
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What a snapshot says of itself."""

    sequence: int  # the record's counter up to which the snapshot follows it
    metric: Metric
    width: int
    rows: int
    sha256: str  # of ids and rows


def save_snapshot(index: VectorIndex, path: Path, *, sequence: int) -> SnapshotHeader:
    """The header of the file that now stands at `path`, in place of any earlier one.

    The file is written beside, synced and renamed, and then its folder is synced: after a crash at any moment
    either the old or the new one is whole. A cut-short attempt leaves only `<name>.partial`, which the next
    one overwrites.

    Memory: one block of rows; the caller keeps writers away meanwhile.
    """
    ids = index.ids()
    step = max(1, _BLOCK_BYTES // (4 * index.width))
    blocks = range(0, len(ids), step)
    digest = hashlib.sha256(ids.astype("<i8").tobytes())
    for start in blocks:
        digest.update(index.vectors(ids[start : start + step]).astype("<f4", copy=False).tobytes())
    header = SnapshotHeader(sequence, index.metric, index.width, len(ids), digest.hexdigest())
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open("wb") as file:
        file.write(_front(header))
        file.write(ids.astype("<i8").tobytes())
        for start in blocks:
            file.write(index.vectors(ids[start : start + step]).astype("<f4", copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(path.parent)
    return header


def read_header(path: Path) -> SnapshotHeader:
    """The header of a snapshot, checked; ids and rows are not looked at.

    Raises:
        SnapshotDamaged: the header is cut short, altered or of no snapshot.
        FileNotFoundError: there is no file.
    """
    with path.open("rb") as file:
        return _read_front(file, path)


def load_snapshot(path: Path, *, kind: Kind) -> tuple[VectorIndex, SnapshotHeader]:
    """An index of that kind with the rows of the snapshot, and its header.

    Memory: the rows once; the file is mapped, not read into memory a second time.

    Raises:
        SnapshotDamaged: the file is cut short, longer than it says, altered or no snapshot.
        FileNotFoundError: there is no file.
    """
    with path.open("rb") as file:
        header = _read_front(file, path)
        start = file.tell()
        expected = start + header.rows * (8 + 4 * header.width)
        size = path.stat().st_size
        if size != expected:
            raise SnapshotDamaged(f"Snapshot `{path.name}` must have {expected} bytes; got {size}.")
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != header.sha256:
        raise SnapshotDamaged(f"Snapshot `{path.name}` must have the sha256 {header.sha256}; got {digest.hexdigest()}.")
    index = make_index(kind, width=header.width, metric=header.metric)
    if header.rows:
        ids = np.memmap(path, dtype="<i8", mode="r", offset=start, shape=(header.rows,))
        rows = np.memmap(path, dtype="<f4", mode="r", offset=start + 8 * header.rows, shape=(header.rows, header.width))
        try:
            index.add(ids, rows)
        except VectorIndexError as error:
            raise SnapshotDamaged(f"Snapshot `{path.name}` must hold usable rows; {error}") from error
    return index, header


def _front(header: SnapshotHeader) -> bytes:
    text = json.dumps(asdict(header), sort_keys=True).encode()
    before = len(MAGIC) + 4
    text += b" " * (-(before + len(text) + _HASH_BYTES) % _ALIGNMENT)
    front = MAGIC + len(text).to_bytes(4, "little") + text
    return front + hashlib.sha256(front).digest()


def _read_front(file: BinaryIO, path: Path) -> SnapshotHeader:
    start = file.read(len(MAGIC) + 4)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if len(start) != len(MAGIC) + 4 or start[: len(MAGIC)] != MAGIC or length > HEADER_MAX_BYTES:
        raise SnapshotDamaged(f"Snapshot `{path.name}` must start as a snapshot does; got {start!r}.")
    text, told = file.read(length), file.read(_HASH_BYTES)
    if hashlib.sha256(start + text).digest() != told:
        raise SnapshotDamaged(f"Snapshot `{path.name}` must have the header that was written; it was altered.")
    facts = json.loads(text)
    return SnapshotHeader(
        sequence=facts["sequence"],
        metric=Metric(facts["metric"]),
        width=facts["width"],
        rows=facts["rows"],
        sha256=facts["sha256"],
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
