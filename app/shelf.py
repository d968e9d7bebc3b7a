"""Collections in memory: derived from the record, always rebuildable, one step behind it at most.

A `CollectionState` mirrors one collection: its images' facts, the live `dn2` scorer with its bank, and an index of the
images outside the bank. It changes only by following the record (`Shelf.follow`), the same way after this process's own
writes and after those of other processes.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.collections.settings import CollectionSettings
from app.db.engine import Database
from app.db.tables import (
    CollectionRow,
    CompressionRow,
    DeletionRow,
    EmbeddingRow,
    GroupMemberRow,
    GroupRow,
    ImageRow,
    VectorRow,
)
from app.errors import NotFound
from app.locks import ReadWriteLock
from index import Metric, Neighbours, make_index
from models.methods.dn2 import DN2Params, LiveDN2

PAGE_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """The facts of one image that searches and filters need."""

    pk: int
    image_id: str
    sha256: str
    role: str
    label: str | None
    group: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A registered normal set: member images in order."""

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


@dataclass(slots=True)
class CollectionState:
    """One collection in memory. Hold `lock.read()` to look, only `Shelf` changes it."""

    id: int
    name: str
    settings: CollectionSettings
    embedding_id: int
    embedding: dict[str, Any]
    fingerprint: str
    weights: str
    width: int
    bank_note: dict[str, Any] | None
    sequence: int
    dn2: LiveDN2
    rest: Any  # VectorIndex of images that are neither normal nor anomalous
    entries: dict[int, ImageEntry] = field(default_factory=dict)
    pk_of: dict[str, int] = field(default_factory=dict)
    groups: dict[str, GroupEntry] = field(default_factory=dict)
    compressed: CompressedBank | None = None
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    # Calibration is brought up to date lazily, by readers: one at a time.
    calibrating: threading.Lock = field(default_factory=threading.Lock)
    following: threading.Lock = field(default_factory=threading.Lock)
    cache: dict[Any, Any] = field(default_factory=dict)  # derived from this sequence only; emptied by every change

    def entry(self, image_id: str) -> ImageEntry:
        """The image with this id. Raises NotFound."""
        pk = self.pk_of.get(image_id)
        if pk is None:
            raise NotFound(f"Collection `{self.name}` has no image `{image_id}`.", "image_unknown")
        return self.entries[pk]

    def vectors(self, pks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, width) of these images, in order."""
        found = np.empty((len(pks), self.width), np.float32)
        places: dict[int, list[int]] = {}
        indexes = {0: self.dn2.bank, 1: self.dn2.anomalous, 2: self.rest}
        for place, pk in enumerate(pks):
            places.setdefault(_shelf_of(self.entries[int(pk)].role), []).append(place)
        wanted = np.asarray(pks, np.int64)
        for which, rows in places.items():
            found[rows] = indexes[which].vectors(wanted[rows])
        return found

    def nearest(self, vectors: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None) -> Neighbours:
        """The k nearest images of any role, nearest first; `allowed` restricts to these pks."""
        found = [
            index.search(vectors, k, allowed=allowed)
            for index in (self.dn2.bank, self.dn2.anomalous, self.rest)
            if len(index)
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
        counts = dict.fromkeys(("normal", "anomalous", "unlabelled", "example"), 0)
        for entry in self.entries.values():
            counts[entry.role] += 1
        return counts


def image_key(image_id: str) -> int:
    """64 bits that depend on the id alone: they choose calibration rows and halves, whatever the order of arrival."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")


def _shelf_of(role: str) -> int:
    return {"normal": 0, "anomalous": 1}.get(role, 2)


class Shelf:
    """Collection states by name, loaded on first use; safe for threads."""

    def __init__(self, database: Database, kept: int = 4096) -> None:
        self._database = database
        self._kept = kept
        self._states: OrderedDict[str, CollectionState] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def get(self, name: str) -> CollectionState:
        """The state of a collection, following everything committed before this call. Raises NotFound."""
        with self._lock:
            state = self._states.get(name)
            if state is not None:
                self._states.move_to_end(name)
            loading = self._loading.setdefault(name, threading.Lock())
        if state is not None:
            state = self.follow(state)
            if state is not None:
                return state
        with loading:
            with self._lock:
                state = self._states.get(name)
            if state is None:
                with self._database.read() as session:
                    state = self._load(session, name)
                with self._lock:
                    self._states[name] = state
                    while len(self._states) > self._kept:
                        self._states.popitem(last=False)
            return state

    def follow(self, state: CollectionState) -> CollectionState | None:
        """Bring a state up to the record; None (and forgotten) when it must be loaded afresh or is gone."""
        with state.following, self._database.read() as session:
            row = session.get(CollectionRow, state.id)
            if row is None or self._must_reload(row, state):
                self.forget(state)
                return None
            if row.sequence != state.sequence:
                self._replay(session, state, row)
            return state

    def forget(self, state: CollectionState) -> None:
        """Drop a state; the next `get` loads it again."""
        with self._lock:
            if self._states.get(state.name) is state:
                del self._states[state.name]

    def drop(self, name: str) -> None:
        """Free the memory of a collection that was deleted."""
        with self._lock:
            self._states.pop(name, None)
            self._loading.pop(name, None)

    def _must_reload(self, row: CollectionRow, state: CollectionState) -> bool:
        return (
            row.name != state.name
            or row.embedding_id != state.embedding_id
            or CollectionSettings(**row.settings) != state.settings
        )

    def _load(self, session: Session, name: str) -> CollectionState:
        row = session.scalar(select(CollectionRow).where(CollectionRow.name == name))
        if row is None:
            raise NotFound(
                f"There is no collection `{name}`; PUT /v1/collections/{name} makes one.", "collection_unknown"
            )
        embedding = session.get_one(EmbeddingRow, row.embedding_id)
        settings = CollectionSettings(**row.settings)
        parameters = DN2Params(k=settings.k, metric=Metric(settings.metric), normalize=settings.normalize)
        state = CollectionState(
            id=row.id,
            name=row.name,
            settings=settings,
            embedding_id=embedding.id,
            embedding=embedding.specification,
            fingerprint=embedding.fingerprint,
            weights=embedding.weights,
            width=embedding.width,
            bank_note=row.bank_note,
            sequence=-1,
            dn2=LiveDN2(width=embedding.width, params=parameters),
            rest=make_index("flat", width=embedding.width, metric=parameters.metric),
        )
        self._replay(session, state, row)
        return state

    def _replay(self, session: Session, state: CollectionState, row: CollectionRow) -> None:
        """Apply every change above the state's sequence. Pages keep memory bounded while a collection loads."""
        since, until = state.sequence, row.sequence
        gone = session.scalars(
            select(DeletionRow.image_pk).where(DeletionRow.collection_id == state.id, DeletionRow.sequence > since)
        ).all()
        groups = self._groups(session, state.id)
        compressed = self._compressed(session, state)
        with state.lock.write():
            self._remove(state, gone)
            last = (since, 0)
            while page := self._page(session, state, last):
                self._apply(state, page)
                last = (page[-1][0].sequence, page[-1][0].id)
            state.groups = groups
            state.compressed = compressed
            state.bank_note = row.bank_note
            state.sequence = until
            state.cache = {}

    def _page(self, session: Session, state: CollectionState, last: tuple[int, int]) -> Sequence[Any]:
        after = (ImageRow.sequence > last[0]) | ((ImageRow.sequence == last[0]) & (ImageRow.id > last[1]))
        statement = (
            select(ImageRow, VectorRow.vector)
            .join(VectorRow, (VectorRow.image_pk == ImageRow.id) & (VectorRow.embedding_id == state.embedding_id))
            .where(ImageRow.collection_id == state.id, after)
            .order_by(ImageRow.sequence, ImageRow.id)
            .limit(PAGE_ROWS)
        )
        page = session.execute(statement).all()
        session.expunge_all()
        return page

    def _apply(self, state: CollectionState, page: Sequence[Any]) -> None:
        self._remove(state, [image.id for image, _ in page if image.id in state.entries])
        chosen: dict[int, list[int]] = {0: [], 1: [], 2: []}
        vectors = np.stack([np.frombuffer(blob, "<f4") for _, blob in page])
        for place, (image, _) in enumerate(page):
            state.entries[image.id] = ImageEntry(
                image.id, image.image_id, image.sha256, image.role, image.label, image.group, image.details
            )
            state.pk_of[image.image_id] = image.id
            chosen[_shelf_of(image.role)].append(place)
        pks = np.array([image.id for image, _ in page], np.int64)
        if rows := chosen[0]:
            keys = np.array([image_key(page[place][0].image_id) for place in rows], np.uint64)
            state.dn2.add_normal(pks[rows], keys, vectors[rows], [page[place][0].group for place in rows])
        if rows := chosen[1]:
            state.dn2.add_anomalous(pks[rows], vectors[rows])
        if rows := chosen[2]:
            state.rest.add(pks[rows], vectors[rows])

    def _remove(self, state: CollectionState, pks: Iterable[int]) -> None:
        known = [pk for pk in pks if pk in state.entries]
        if not known:
            return
        gone = np.array(known, np.int64)
        state.dn2.remove(gone)
        state.rest.remove(gone)
        for pk in known:
            del state.pk_of[state.entries.pop(pk).image_id]

    def _groups(self, session: Session, collection_id: int) -> dict[str, GroupEntry]:
        members: dict[int, list[int]] = {}
        statement = (
            select(GroupMemberRow.group_pk, GroupMemberRow.image_pk)
            .join(GroupRow, GroupRow.id == GroupMemberRow.group_pk)
            .where(GroupRow.collection_id == collection_id)
            .order_by(GroupMemberRow.group_pk, GroupMemberRow.position)
        )
        for group_pk, image_pk in session.execute(statement):
            members.setdefault(group_pk, []).append(image_pk)
        rows = session.scalars(select(GroupRow).where(GroupRow.collection_id == collection_id)).all()
        return {row.name: GroupEntry(row.name, tuple(members.get(row.id, ())), row.details) for row in rows}

    def _compressed(self, session: Session, state: CollectionState) -> CompressedBank | None:
        made = session.execute(
            select(CompressionRow.sequence, CompressionRow.embedding_id).where(CompressionRow.collection_id == state.id)
        ).one_or_none()
        if made is None or made.embedding_id != state.embedding_id:
            return None
        if state.compressed is not None and state.compressed.sequence == made.sequence:
            return state.compressed  # its arrays are large and never change
        row = session.get_one(CompressionRow, state.id)
        return CompressedBank(
            method=row.method,
            centres=np.frombuffer(row.centres, "<f4").reshape(-1, state.width),
            centre_pks=np.frombuffer(row.centre_pks, "<i8"),
            member_pks=np.frombuffer(row.member_pks, "<i8"),
            member_marks=np.frombuffer(row.member_marks, "<u8"),
            member_places=np.frombuffer(row.member_places, "<i4"),
            sequence=row.sequence,
            report=row.report,
        )
