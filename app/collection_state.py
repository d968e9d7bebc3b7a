"""One collection in memory: what searches, filters and scorers look at."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from app.collections.settings import CollectionSettings
from app.entries import EntryTable
from app.entry_columns import ROLES, ImageEntry
from app.errors import NotFound
from app.locks import ReadWriteLock
from app.vector_checksums import damaged
from index import Metric, Neighbours
from models.leave_one_out import CALIBRATION_ROWS
from models.methods.dn2 import LiveDN2
from models.projection import Projection

if TYPE_CHECKING:
    from index import AutoIndex  # loads FAISS, which no start waits for
    from models.batching import BatchingEmbedder

# No more than a rough guide: sizes of Python objects measured with tracemalloc on CPython 3.11.
STATE_BYTES = 12_000  # an empty collection: settings, scorer, three indexes, locks
ENTRY_BYTES = 250  # an image's row of the entry table with an id of 64 characters and metadata of 100
GROUP_BYTES = 900  # a registered group without its members
CALIBRATION_COPIES = 2  # of the vector of a calibration row: as given and at unit length


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A registered normal set: member images in order."""

    pk: int
    name: str
    members: tuple[int, ...]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CompressedBank:
    """A small bank standing for the whole; see `app.upkeep`."""

    method: str
    centres: NDArray[np.float32]
    centre_pks: NDArray[np.int64]
    member_pks: NDArray[np.int64]
    member_marks: NDArray[np.uint64]
    member_places: NDArray[np.int32]
    sequence: int
    report: dict[str, Any]

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays, and as much again for the scorer built from them."""
        arrays = (self.centres, self.centre_pks, self.member_pks, self.member_marks, self.member_places)
        return sum(one.nbytes for one in arrays) + 2 * self.centres.nbytes


@dataclass(slots=True)
class CollectionState:
    """One collection in memory. Hold `lock.read()` to look, only `Shelf` changes it."""

    id: int
    name: str
    settings: CollectionSettings
    embedding_id: int
    embedding: dict[str, Any]
    fingerprint: str
    base_id: int  # the version that the network computes; `embedding_id` itself where nothing is projected
    base_fingerprint: str
    projection: Projection | None  # of the base's vectors
    weights: str
    width: int
    bank_note: dict[str, Any] | None
    sequence: int
    dn2: LiveDN2
    rest: "AutoIndex"  # images that are neither normal nor anomalous
    superseded_at: int | None = None  # the change since which the record answers by another embedding
    index_version: int = 0  # of the record's counter when this was loaded: behind it, it is to be renewed
    entries: EntryTable = field(default_factory=EntryTable)
    groups: dict[str, GroupEntry] = field(default_factory=dict)
    compressed: CompressedBank | None = None
    damaged: dict[int, str] = field(default_factory=dict)  # images left out because their stored vector is not intact
    runtimes: dict[int, str] = field(default_factory=dict)  # of the vectors held: row -> what they may be compared with
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    # Calibration is brought up to date lazily, by readers: one at a time.
    calibrating: threading.Lock = field(default_factory=threading.Lock)
    following: threading.Lock = field(default_factory=threading.Lock)
    # What computed the last vectors to be compared with these, while it is loaded; others may be needed by now.
    network: "ref[BatchingEmbedder] | None" = None
    cache: dict[Any, Any] = field(default_factory=dict)  # derived from this sequence only; emptied by every change
    # Derived too, but kept over changes: whoever put it there checks that it is still right.
    kept: dict[str, Any] = field(default_factory=dict)
    fitting: threading.Lock = field(default_factory=threading.Lock)

    def entry(self, image_id: str) -> ImageEntry:
        """The image with this id. Raises NotFound, BytesDamaged."""
        pk = self.entries.find(image_id)
        if pk is None:
            if image_id in self.damaged.values():
                raise damaged(image_id)
            raise NotFound(f"Collection `{self.name}` has no image `{image_id}`.", "image_unknown")
        return self.entries[pk]

    def vectors(self, pks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, width) of these images, in order, as distances are measured between them: see `dn2.prepared`."""
        found = np.empty((len(pks), self.width), np.float32)
        wanted = np.asarray(pks, np.int64)
        shelves = SHELVES[self.entries.roles_of(wanted)]
        for which, index in enumerate((self.dn2.bank, self.dn2.anomalous, self.rest)):
            rows = np.flatnonzero(shelves == which)
            if rows.size:
                found[rows] = index.vectors(wanted[rows])
        return found

    @property
    def is_scaled(self) -> bool:
        """Whether vectors are held at unit length and not as they were given."""
        return self.dn2.params.normalize and self.dn2.params.metric is Metric.L2

    def indexes(self) -> dict[str, "AutoIndex"]:
        """The three indexes by what they hold."""
        return {"bank": self.dn2.bank, "anomalous": self.dn2.anomalous, "rest": self.rest}

    @property
    def is_exact(self) -> bool:
        """Whether every search finds the true nearest."""
        return all(index.describe()["exact"] for index in self.indexes().values())

    def nearest(
        self,
        vectors: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        *,
        is_exact: bool = False,
    ) -> Neighbours:
        """The k nearest images of any role to vectors that `dn2.prepared` gave, nearest first.

        `allowed` restricts to these pks.
        `is_exact` asks for the true nearest from a structure that may miss one.
        """
        found = [
            index.search(vectors, k, allowed=allowed, exact=is_exact) for index in self.indexes().values() if len(index)
        ]
        if not found:
            shape = (len(vectors), k)
            return Neighbours(np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32))
        ids = np.concatenate([one.ids for one in found], axis=1)
        distances = np.concatenate([one.distances for one in found], axis=1)
        order = np.lexsort((ids, distances), axis=1)[:, :k]
        return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(distances, order, 1))

    def counts(self) -> dict[str, int]:
        """How many images of each role."""
        return self.entries.counts()

    def memory_bytes(self) -> int:
        """What the collection takes: vectors and facts by the byte, the rest by what it usually comes to."""
        indexes = self.dn2.bank.memory_bytes + self.dn2.anomalous.memory_bytes + self.rest.memory_bytes
        members = sum(len(group.members) for group in self.groups.values())
        return (
            indexes
            + facts_bytes(0, len(self.dn2.bank), self.width)
            + self.entries.memory_bytes
            + len(self.groups) * GROUP_BYTES
            + members * 8
            + (0 if self.compressed is None else self.compressed.memory_bytes)
            + sum(int(one.memory_bytes) for one in list(self.kept.values()))
            + (0 if self.projection is None else self.projection.memory_bytes)
        )


def facts_bytes(images: int, normal: int, width: int) -> int:
    """What a collection of so many images takes beside its vectors."""
    return STATE_BYTES + images * ENTRY_BYTES + min(normal, CALIBRATION_ROWS) * CALIBRATION_COPIES * width * 4


def shelf_of(role: str) -> int:
    """Which of the three indexes holds images of this role: the bank, the taught defects, the rest."""
    return {"normal": 0, "anomalous": 1}.get(role, 2)


SHELVES = np.array([shelf_of(role) for role in ROLES], np.uint8)  # by code of the role
