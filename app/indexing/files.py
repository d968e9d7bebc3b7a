"""A collection's state as one file, from which a start goes on instead of reading every row of the record.

A file is derived from the record and counts only when the record vouches for it: its digest stands in a row of
`index_files`, written after the file was on disk. A file that some other record left in the folder, or one from before
a database was restored from its backup, is vouched for by nobody and never looked at. A file that is vouched for and
damaged is set aside under another name, for people to look at, and the state is read from the record.
"""

import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.collection_state import CollectionState
from app.entries import EntryTable
from index import SnapshotDamaged, open_arrays, write_arrays
from models.methods.dn2 import LiveDN2

log = logging.getLogger("oddity.indexing")
FORMAT = 5  # of what stands in a file; a file of another format is built anew
DAMAGED_SUFFIX = ".damaged"
UNNAMED = "unnamed"  # in the name of a file until it is whole
LEFT_OVER_S = 3600.0  # what has not been written to for so long, nobody writes


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is on disk and that nobody vouches for yet."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The parts of a state that a file holds, beside the indexes, which are filled in place."""

    sequence: int
    dn2: LiveDN2
    entries: EntryTable
    runtimes: dict[int, str]
    damaged: dict[int, str]


class IndexFiles:
    """The folder of index files of one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, collection_id: int, digest: str) -> Path:
        """Where the file of a collection with this digest lies."""
        return self.folder / f"{collection_id}-{digest}.index"

    def write(self, state: CollectionState) -> Written:
        """Write down a state that nobody changes meanwhile; on disk when this returns.

        Memory: one block of rows.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {}
        indexes: dict[str, Any] = {}
        for part, index in state.indexes().items():
            of_index, indexes[part] = index.export_arrays()
            arrays.update({f"{part}/{name}": array for name, array in of_index.items()})
        arrays.update({f"dn2/{name}": array for name, array in state.dn2.export_arrays().items()})
        arrays.update({f"entries/{name}": array for name, array in state.entries.export_arrays().items()})
        facts = {
            "format": FORMAT,
            "collection": state.id,
            "embedding": state.embedding_id,
            "sequence": state.sequence,
            "parameters": _parameters(state),
            "indexes": indexes,
            "runtimes": {str(pk): name for pk, name in state.runtimes.items()},
            "damaged": {str(pk): name for pk, name in state.damaged.items()},
        }
        # A name of its own: a job whose lease ran out may still be writing when the next one begins.
        unnamed = self.folder / f"{state.id}-{UNNAMED}-{uuid.uuid4().hex}.index"
        try:
            size = write_arrays(unnamed, arrays, facts)
            digest = _digest(unnamed)
            unnamed.replace(self.path(state.id, digest))
        finally:  # a disk that is full is not to stay so
            for path in self.folder.glob(f"{unnamed.name}*"):
                path.unlink(missing_ok=True)
        return Written(digest, size)

    def read(self, path: Path, state: CollectionState) -> Restored | None:
        """What a file holds, for an empty state, whose indexes it fills; None when it is of no use, and why is logged.

        Every byte is checked. A damaged file is renamed, so that it is tried once. After None the state may be half
        filled.
        """
        try:
            return self._read(path, state)
        except FileNotFoundError:
            return None
        except SnapshotDamaged as error:
            aside = path.with_name(path.name + DAMAGED_SUFFIX)
            log.error("index file set aside as %s, `%s` is read from the record: %s", aside.name, state.name, error)
            with suppress(FileNotFoundError):  # another process was quicker
                path.rename(aside)
            return None

    def digests(self, collection_id: int) -> list[str]:
        """The digests of a collection's files that lie here."""
        names = (path.name for path in self.folder.glob(f"{collection_id}-*.index"))
        return [name.removesuffix(".index").split("-", 1)[1] for name in names]

    def prune(self, collection_id: int, kept: Sequence[str]) -> None:
        """Remove the collection's files that the record no longer vouches for, and what cut-short writes left.

        A process that still reads a removed file keeps it until it is done.
        """
        names = {self.path(collection_id, digest).name for digest in kept}
        for path in self.folder.glob(f"{collection_id}-*"):
            is_kept = path.name in names or path.name.endswith(DAMAGED_SUFFIX) or _is_being_written(path)
            if not is_kept:
                path.unlink(missing_ok=True)

    def prune_collections(self, living: set[int]) -> int:
        """Remove all files, damaged ones too, of collections that are gone; how many files that were."""
        gone = 0
        for path in self.folder.glob("*-*"):
            number = path.name.split("-")[0]
            if number.isdecimal() and int(number) not in living and not _is_being_written(path):
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _read(self, path: Path, state: CollectionState) -> Restored | None:
        with open_arrays(path) as file:
            if path.name != self.path(state.id, file.digest).name:
                raise SnapshotDamaged(f"Index file `{path.name}` must have the front its name says; it was altered.")
            facts = file.facts
            told = {name: facts.get(name) for name in ("format", "collection", "embedding", "parameters")}
            wanted = {
                "format": FORMAT,
                "collection": state.id,
                "embedding": state.embedding_id,
                "parameters": _parameters(state),
            }
            if told != wanted:
                log.info("index file %s is of %s, wanted is %s; the record is read", path.name, told, wanted)
                return None
            for part, index in state.indexes().items():
                index.restore(file.under(f"{part}/"), facts["indexes"][part])
            entries = EntryTable.restore({name: array.view() for name, array in file.under("entries/").items()})
            dn2 = LiveDN2.restore(
                params=state.dn2.params,
                bank=state.dn2.bank,
                anomalous=state.dn2.anomalous,
                arrays={name: array.read() for name, array in file.under("dn2/").items()},
                grouped=entries.grouped("normal"),
            )
            runtimes = {int(pk): str(name) for pk, name in facts["runtimes"].items()}
            damaged = {int(pk): str(name) for pk, name in facts["damaged"].items()}
            return Restored(facts["sequence"], dn2, entries, runtimes, damaged)


def _parameters(state: CollectionState) -> dict[str, Any]:
    """What the vectors in memory rest on; `k` is not among it, as the calibration rows remember more neighbours."""
    rest_on = state.dn2.params.model_dump(mode="json", include={"metric", "normalize"})
    return {**rest_on, "scaled": "all"} if state.is_scaled else rest_on  # once only the bank was


def _is_being_written(path: Path) -> bool:
    """Whether another job, perhaps in another process, may still be at this file."""
    if UNNAMED not in path.name:
        return False
    try:
        return time.time() - path.stat().st_mtime < LEFT_OVER_S
    except FileNotFoundError:
        return False


def _digest(path: Path) -> str:
    with open_arrays(path) as file:
        return file.digest
