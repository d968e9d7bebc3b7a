"""From the record into memory: reading a collection, and bringing it up to date.

Rows are read as plain columns, never as objects of the session: a large collection loads several times faster so.
Following is the same for this process's own writes and for those of others. What has changed is read first and then
applied under the state's lock, so that searches wait for memory alone and never see half of it.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from app.collection_state import SHELVES, CollectionState, CompressedBank, GroupEntry, facts_bytes, shelf_of
from app.collections.settings import CollectionSettings
from app.db.tables import (
    CollectionRow,
    CompressionRow,
    DeletionRow,
    EmbeddingRow,
    GroupMemberRow,
    GroupRow,
    ImageRow,
    IndexFileRow,
    RuntimeRow,
    VectorRow,
)
from app.entry_columns import EntryColumns
from app.indexing.files import IndexFiles
from app.projections import read_projection
from app.vector_checksums import is_intact
from index import SCRATCH_MIN_BYTES, Metric, make_index
from models.methods.dn2 import DN2Params, LiveDN2
from models.runtime import COMPARABLE

log = logging.getLogger("oddity.shelf")

PAGE_ROWS = 4096
NOTHING_YET = -1  # the sequence of a state that was not read yet
BUILT_FROM = ("metric", "normalize", "k")  # settings that the structures in memory rest on
Page = Sequence[Any]


@dataclass(frozen=True, slots=True)
class _Changes:
    """What the record holds above a state's sequence."""

    gone: Sequence[int]
    gone_groups: Sequence[int]
    groups: Sequence[GroupEntry]
    compressed: CompressedBank | None


def expected_bytes(session: Session, row: CollectionRow) -> int:
    """What a collection will take in memory, told before it is read."""
    counts = _role_counts(session, row.id)
    images = sum(counts.values())
    width = session.get_one(EmbeddingRow, row.embedding_id).width
    vectors = images * width * 4
    in_files = vectors >= SCRATCH_MIN_BYTES  # where the system takes the memory back by itself
    return facts_bytes(images, counts.get("normal", 0), width) + (0 if in_files else vectors)


def load(session: Session, row: CollectionRow, files: IndexFiles | None = None) -> CollectionState:
    """The state of a collection as this session sees it: from the newest file that is of use, or from the record alone.

    A file spares reading what stood in the record when it was written; what came since is read as always.
    """
    state = None if files is None else _from_file(session, row, files)
    if state is None:
        state = _empty(session, row)
    _go_on(session, state, row)
    return state


def _from_file(session: Session, row: CollectionRow, files: IndexFiles) -> CollectionState | None:
    for file in _useful(session, row):
        state = _empty(session, row)
        restored = files.read(files.path(row.id, file.digest), state)
        if restored is not None:
            state.dn2, state.entries, state.sequence = restored.dn2, restored.entries, restored.sequence
            state.runtimes, state.damaged = restored.runtimes, restored.damaged
            return state
    return None


def _useful(session: Session, row: CollectionRow) -> Sequence[IndexFileRow]:
    """Files that the record vouches for, newest first, of the active embedding and with no deletion missed."""
    statement = (
        select(IndexFileRow)
        .where(
            IndexFileRow.collection_id == row.id,
            IndexFileRow.embedding_id == row.embedding_id,
            IndexFileRow.sequence >= row.pruned_sequence,
        )
        .order_by(IndexFileRow.id.desc())
    )
    return session.scalars(statement).all()


def _empty(session: Session, row: CollectionRow) -> CollectionState:
    """A state that holds nothing yet."""
    embedding = session.get_one(EmbeddingRow, row.embedding_id)
    base = embedding if embedding.base_id is None else session.get_one(EmbeddingRow, embedding.base_id)
    settings = CollectionSettings(**row.settings)
    parameters = DN2Params(k=settings.k, metric=Metric(settings.metric), normalize=settings.normalize)
    return CollectionState(
        id=row.id,
        name=row.name,
        settings=settings,
        embedding_id=embedding.id,
        embedding=embedding.specification,
        fingerprint=embedding.fingerprint,
        base_id=base.id,
        base_fingerprint=base.fingerprint,
        projection=None if base is embedding else read_projection(session, embedding.id),
        weights=embedding.weights,
        width=embedding.width,
        bank_note=row.bank_note,
        sequence=NOTHING_YET,
        dn2=LiveDN2(width=embedding.width, params=parameters),
        rest=make_index("auto", width=embedding.width, metric=parameters.metric),
        index_version=row.index_version,
    )


def _go_on(session: Session, state: CollectionState, row: CollectionRow) -> None:
    """Bring a state that nobody else sees up to the record."""
    changes = _changes(session, state)
    _remove(state, changes.gone)
    is_reserved = False
    for page in _pages(session, state):
        _learn_runtimes(session, state, page)
        _apply(state, page)
        state.entries.adopt(state.entries.settled())
        if len(page) == PAGE_ROWS and not is_reserved:  # more is to come: room for all of it is claimed at once
            _reserve(session, state)
            is_reserved = True
    state.groups = {}
    _finish(state, replace(changes, groups=_groups(session, state.id, NOTHING_YET)), row)


def must_reload(session: Session, row: CollectionRow, state: CollectionState) -> bool:
    """Whether what a state was built on has changed, or what it missed is not kept any more: it cannot catch up.

    While its embedding is kept a state can follow, though another is active: every write serves all versions.
    """
    settings = CollectionSettings(**row.settings)
    return (
        (row.embedding_id != state.embedding_id and session.get(EmbeddingRow, state.embedding_id) is None)
        or state.sequence < row.pruned_sequence
        or any(getattr(settings, one) != getattr(state.settings, one) for one in BUILT_FROM)
    )


def catch_up(session: Session, state: CollectionState, row: CollectionRow) -> None:
    """Apply every change above the state's sequence, all at once for those who look."""
    pages = list(_pages(session, state))
    for page in pages:
        _learn_runtimes(session, state, page)
    changes = _changes(session, state)
    with state.lock.write():
        _remove(state, changes.gone)
        for page in pages:
            _apply(state, page)
        state.settings = CollectionSettings(**row.settings)
        _finish(state, changes, row)
    settled = state.entries.settled()  # takes seconds for a million images, while others look
    if settled is not None:
        with state.lock.write():
            state.entries.adopt(settled)


def _finish(state: CollectionState, changes: _Changes, row: CollectionRow) -> None:
    _apply_groups(state, changes)
    state.compressed = changes.compressed
    state.bank_note = row.bank_note
    state.superseded_at = None if row.embedding_id == state.embedding_id else row.embedding_sequence
    state.sequence = row.sequence
    state.cache = {}
    if not len(state.entries):
        state.runtimes = {}


def _pages(session: Session, state: CollectionState) -> Iterator[Page]:
    """Images above the state's sequence with their vectors, streamed: memory holds a page at a time."""
    statement = (
        select(
            ImageRow.id,
            ImageRow.image_id,
            ImageRow.sha256,
            ImageRow.role,
            ImageRow.label,
            ImageRow.group,
            cast(ImageRow.details, Text),
            VectorRow.vector,
            VectorRow.runtime_id,
            VectorRow.checksum,
        )
        .join(VectorRow, (VectorRow.image_pk == ImageRow.id) & (VectorRow.embedding_id == state.embedding_id))
        .where(ImageRow.collection_id == state.id, ImageRow.sequence > state.sequence)
        .order_by(ImageRow.sequence, ImageRow.id)
    )
    found = session.execute(statement, execution_options={"yield_per": PAGE_ROWS})
    yield from found.partitions()


def _learn_runtimes(session: Session, state: CollectionState, page: Page) -> None:
    """What the vectors of these images may be compared with, by the runtimes that computed them."""
    new = {row.runtime_id for row in page} - state.runtimes.keys()
    if new:
        found = session.execute(select(RuntimeRow.id, RuntimeRow.description).where(RuntimeRow.id.in_(new)))
        named = {pk: str(description.get("comparable_with", COMPARABLE)) for pk, description in found}
        state.runtimes = {**state.runtimes, **named}


def _changes(session: Session, state: CollectionState) -> _Changes:
    since = state.sequence
    gone: dict[str, Sequence[int]] = {"image_pk": (), "group_pk": ()}
    if since != NOTHING_YET:
        for name in gone:
            column = getattr(DeletionRow, name)
            later = (DeletionRow.collection_id == state.id) & (DeletionRow.sequence > since)
            gone[name] = session.scalars(select(column).where(later, column.is_not(None))).all()
    return _Changes(
        gone=gone["image_pk"],
        gone_groups=gone["group_pk"],
        groups=_groups(session, state.id, since),
        compressed=_compressed(session, state),
    )


def _groups(session: Session, collection_id: int, since: int) -> list[GroupEntry]:
    """Groups that were registered above a sequence."""
    chosen = (GroupRow.collection_id == collection_id) & (GroupRow.sequence > since)
    rows = session.execute(select(GroupRow.id, GroupRow.name, GroupRow.details).where(chosen)).all()
    if not rows:
        return []
    members: dict[int, list[int]] = {}
    statement = (
        select(GroupMemberRow.group_pk, GroupMemberRow.image_pk)
        .join(GroupRow, GroupRow.id == GroupMemberRow.group_pk)
        .where(chosen)
        .order_by(GroupMemberRow.group_pk, GroupMemberRow.position)
    )
    for group_pk, image_pk in session.execute(statement):
        members.setdefault(group_pk, []).append(image_pk)
    return [GroupEntry(pk, name, tuple(members.get(pk, ())), details) for pk, name, details in rows]


def _compressed(session: Session, state: CollectionState) -> CompressedBank | None:
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


def _role_counts(session: Session, collection_id: int) -> dict[str, int]:
    statement = (
        select(ImageRow.role, func.count()).where(ImageRow.collection_id == collection_id).group_by(ImageRow.role)
    )
    return dict(session.execute(statement).all())


def _reserve(session: Session, state: CollectionState) -> None:
    coming: dict[int, int] = {}
    for role, count in _role_counts(session, state.id).items():
        coming[shelf_of(role)] = coming.get(shelf_of(role), 0) + count
    for which, index in enumerate((state.dn2.bank, state.dn2.anomalous, state.rest)):
        index.reserve(max(0, coming.get(which, 0) - len(index)))


def _intact(state: CollectionState, page: Page) -> Page:
    """The images of the page whose vectors are those that were stored; the state notes the others, and leaves them out.

    An image that was left out comes back when it is sent again.
    """
    broken = {row[0]: row.image_id for row in page if not is_intact(row[0], row.vector, row.checksum, state.width)}
    if not broken and not state.damaged:
        return page
    for image_id in broken.values():
        log.error("stored vector of image %r of `%s` is damaged: left out until it is sent again", image_id, state.name)
    _remove(state, list(broken))
    intact = [row for row in page if row[0] not in broken]
    mended = {row[0] for row in intact}
    state.damaged = {pk: name for pk, name in (state.damaged | broken).items() if pk not in mended}
    return intact


def _apply(state: CollectionState, page: Page) -> None:
    page = _intact(state, page)
    if not page:
        return
    pks, image_ids, hashes, roles, labels, groups, texts, blobs, *_ = zip(*page, strict=True)
    vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(page), state.width)
    came = EntryColumns.of(pks, image_ids, hashes, roles, labels, groups, texts)
    moved = ~_only_retold(state, came, groups, vectors)
    _remove(state, came.pks[moved])
    state.entries.put(came)
    shelves = np.where(moved, SHELVES[came.roles], -1)
    if (rows := np.flatnonzero(shelves == 0)).size:
        state.dn2.add_normal(came.pks[rows], came.keys[rows], vectors[rows], [groups[row] for row in rows])
    if (rows := np.flatnonzero(shelves == 1)).size:
        state.dn2.add_anomalous(came.pks[rows], vectors[rows])
    if (rows := np.flatnonzero(shelves == 2)).size:
        state.rest.add(came.pks[rows], state.dn2.prepared(vectors[rows]))


def _only_retold(
    state: CollectionState, came: EntryColumns, groups: Sequence[str | None], vectors: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Images that came with new facts only: they stay where they are in the indexes, and calibration stays too."""
    retold = state.entries.known(came.pks)
    rows = np.flatnonzero(retold)
    if rows.size:
        pks = came.pks[rows]
        same = state.entries.roles_of(pks) == came.roles[rows]
        same &= (state.entries.hashes_of(pks) == came.hashes[rows]).all(axis=1)
        same &= [before == groups[row] for row, before in zip(rows.tolist(), state.entries.groups_of(pks), strict=True)]
        same &= (state.vectors(pks) == state.dn2.prepared(vectors[rows])).all(axis=1)
        retold[rows] = same
    return retold


def _remove(state: CollectionState, pks: Sequence[int] | NDArray[np.int64]) -> None:
    gone = np.asarray(pks, np.int64)
    if state.damaged:
        left = set(state.damaged).difference(gone.tolist())
        state.damaged = {pk: name for pk, name in state.damaged.items() if pk in left}
    gone = gone[state.entries.known(gone)]
    if gone.size:
        state.dn2.remove(gone)
        state.rest.remove(gone)
        state.entries.remove(gone)


def _apply_groups(state: CollectionState, changes: _Changes) -> None:
    """Groups as the record has them: registered anew, forgotten, or without members that are gone."""
    if changes.gone_groups:
        forgotten = set(changes.gone_groups)
        state.groups = {name: one for name, one in state.groups.items() if one.pk not in forgotten}
    if changes.gone and state.groups:
        gone = set(changes.gone)
        for name, one in state.groups.items():
            if not gone.isdisjoint(one.members):
                left = tuple(pk for pk in one.members if pk not in gone)
                state.groups[name] = GroupEntry(one.pk, name, left, one.metadata)
    for one in changes.groups:
        state.groups[one.name] = one
