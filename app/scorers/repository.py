"""Every SQL statement about fitted scorers."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.db.tables import (
    EmbeddingRow,
    FeedbackRow,
    FitPartRow,
    FitRow,
    GroupMemberRow,
    GroupRow,
    ImageRow,
    JobRow,
    RuntimeRow,
    ScorerRow,
    VectorRow,
)
from app.jobs.repository import ENDED
from app.vector_checksums import damaged, is_intact
from models.runtime import COMPARABLE

PART_BYTES = 16 * 2**20  # well below what any database takes as one value
PAGE_ROWS = 1000


def find(session: Session, collection_id: int, name: str, *, locked: bool = False) -> ScorerRow | None:
    """The scorer of this name, if there is one."""
    statement = select(ScorerRow).where(ScorerRow.collection_id == collection_id, ScorerRow.name == name)
    return session.scalar(statement.with_for_update() if locked else statement)


def all_of(session: Session, collection_id: int) -> Sequence[ScorerRow]:
    """The scorers of a collection in order of name."""
    statement = select(ScorerRow).where(ScorerRow.collection_id == collection_id)
    return session.scalars(statement.order_by(ScorerRow.name)).all()


def count(session: Session, collection_id: int) -> int:
    """How many scorers a collection has."""
    statement = select(func.count()).select_from(ScorerRow).where(ScorerRow.collection_id == collection_id)
    return session.scalar(statement) or 0


def fit(session: Session, fit_id: int | None) -> FitRow | None:
    """A fit, if it is there."""
    return None if fit_id is None else session.get(FitRow, fit_id)


def job(session: Session, job_id: str) -> JobRow | None:
    """The job of a scorer."""
    return session.get(JobRow, job_id)


def cancel_job(session: Session, job_id: str, now: Any) -> None:
    """Ask for the end of a fit that nobody wants any more."""
    running = update(JobRow).where(JobRow.id == job_id, JobRow.state.not_in(ENDED)).values(cancel_requested=True)
    session.execute(running)
    queued = (JobRow.id == job_id) & (JobRow.state == "queued")
    session.execute(update(JobRow).where(queued).values(state="cancelled", finished_at=now))


def activate(session: Session, scorer: ScorerRow, row: FitRow, state: bytes) -> None:
    """Store a fit and let it serve in place of any other, which is deleted."""
    session.add(row)
    session.flush()
    for position, start in enumerate(range(0, len(state), PART_BYTES)):
        session.add(FitPartRow(fit_id=row.id, position=position, data=state[start : start + PART_BYTES]))
    scorer.fit_id = row.id
    session.flush()
    session.execute(delete(FitRow).where(FitRow.scorer_id == scorer.id, FitRow.id != row.id))


def drop(session: Session, scorer: ScorerRow) -> None:
    """Forget a scorer with its fit."""
    session.execute(delete(ScorerRow).where(ScorerRow.id == scorer.id))


def changes_since(session: Session, collection_id: int, row: FitRow, marks: Any) -> tuple[int, int]:
    """How many images have joined the bank since a fit, and how many have left it; new bytes count as both.

    `marks` makes a mark of each sha256, as the fit kept them.
    """
    members = np.frombuffer(row.member_pks, "<i8")
    kept_marks = np.frombuffer(row.member_marks, "<u8")
    of_bank = (ImageRow.collection_id == collection_id) & (ImageRow.role == "normal")
    bank = session.scalar(select(func.count()).select_from(ImageRow).where(of_bank)) or 0
    found = session.execute(select(ImageRow.id, ImageRow.sha256).where(of_bank, ImageRow.sequence > row.sequence)).all()
    pks = np.array([one.id for one in found], np.int64)
    places = np.minimum(np.searchsorted(members, pks), max(members.size - 1, 0))
    known = members[places] == pks if members.size else np.zeros(pks.size, bool)
    replaced = int((kept_marks[places[known]] != marks([one.sha256 for one in found])[known]).sum())
    added = int((~known).sum())
    left = members.size - (bank - added)
    return added + replaced, left + replaced


def images(session: Session, collection_id: int) -> list[Any]:
    """Facts of every image, in order of arrival."""
    statement = (
        select(
            ImageRow.id,
            ImageRow.image_id,
            ImageRow.sha256,
            ImageRow.role,
            ImageRow.label,
            ImageRow.group,
            ImageRow.details,
            ImageRow.width,
            ImageRow.height,
        )
        .where(ImageRow.collection_id == collection_id)
        .order_by(ImageRow.id)
    )
    return list(session.execute(statement).all())


def vectors(session: Session, embedding_id: int) -> Iterator[tuple[int, bytes, int]]:
    """Key, vector and runtime of every image of an embedding, streamed in order of arrival. Raises BytesDamaged."""
    width = session.get_one(EmbeddingRow, embedding_id).width
    statement = (
        select(VectorRow.image_pk, VectorRow.vector, VectorRow.checksum, ImageRow.image_id, VectorRow.runtime_id)
        .join(ImageRow, ImageRow.id == VectorRow.image_pk)
        .where(VectorRow.embedding_id == embedding_id)
        .order_by(VectorRow.image_pk)
    )
    for found in session.execute(statement, execution_options={"yield_per": PAGE_ROWS}):
        if not is_intact(found[0], found[1], found[2], width):
            raise damaged(found[3])
        yield found[0], found[1], found[4]


def comparable_with(session: Session, runtimes: Collection[int]) -> set[str]:
    """What vectors of these runtimes may be compared with."""
    found = session.scalars(select(RuntimeRow.description).where(RuntimeRow.id.in_(runtimes)))
    return {str(one.get("comparable_with", COMPARABLE)) for one in found}


def sets(session: Session, collection_id: int) -> dict[str, list[int]]:
    """Keys of the members of each registered set, in order."""
    statement = (
        select(GroupRow.name, GroupMemberRow.image_pk)
        .join(GroupMemberRow, GroupMemberRow.group_pk == GroupRow.id)
        .where(GroupRow.collection_id == collection_id)
        .order_by(GroupRow.name, GroupMemberRow.position)
    )
    found: dict[str, list[int]] = {}
    for name, pk in session.execute(statement):
        found.setdefault(name, []).append(pk)
    return found


def answers(session: Session, collection_id: int) -> Sequence[FeedbackRow]:
    """Comparisons and ratings that stand, oldest first."""
    statement = select(FeedbackRow).where(
        FeedbackRow.collection_id == collection_id,
        FeedbackRow.kind.in_(("pair", "rating")),
        FeedbackRow.undone_at.is_(None),
    )
    return session.scalars(statement.order_by(FeedbackRow.id)).all()


def answer_kinds(session: Session, collection_id: int) -> dict[str, int]:
    """How many comparisons and ratings stand, by kind."""
    statement = (
        select(FeedbackRow.kind, func.count().label("n"))
        .where(FeedbackRow.collection_id == collection_id, FeedbackRow.undone_at.is_(None))
        .group_by(FeedbackRow.kind)
    )
    return {one.kind: one.n for one in session.execute(statement)}


def embedding(session: Session, embedding_id: int) -> EmbeddingRow:
    """A version of the embedding."""
    return session.get_one(EmbeddingRow, embedding_id)


def role_counts(session: Session, collection_id: int) -> dict[tuple[str, bool, bool], int]:
    """How many images of each role, with a label or without, with a group or without."""
    has_label, has_group = ImageRow.label.is_not(None), ImageRow.group.is_not(None)
    statement = (
        select(ImageRow.role, has_label, has_group, func.count())
        .where(ImageRow.collection_id == collection_id)
        .group_by(ImageRow.role, has_label, has_group)
    )
    return {(role, bool(label), bool(group)): n for role, label, group, n in session.execute(statement)}


def metadata(session: Session, collection_id: int) -> Iterator[dict[str, Any]]:
    """Metadata of every image."""
    statement = select(ImageRow.details).where(ImageRow.collection_id == collection_id)
    yield from session.scalars(statement, execution_options={"yield_per": PAGE_ROWS})


def marks_of(hashes: Collection[str]) -> NDArray[np.uint64]:
    """64 bits of each hash, enough to tell whether an image's bytes are still the same."""
    return np.array([int(one[:16], 16) for one in hashes], np.uint64)
