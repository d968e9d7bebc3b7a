"""The versions of a collection's embedding that a write must serve, and their projections, read from the record once.

Vectors of the network itself (the base) are kept for every image, and beside them those of each version that projects
them. Whoever writes an image writes all of these in one transaction, so that a collection can go over at any moment.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.db.tables import CollectionRow, EmbeddingPartRow, EmbeddingRow
from models.contract import FittedState
from models.errors import StateDamaged
from models.fitted_files import read_state, state_bytes
from models.projection import Projection

PART_BYTES = 16 * 2**20  # well below what any database takes as one value
KEPT = 32
_NAME = "projection"


@dataclass(frozen=True, slots=True)
class Versions:
    """What vectors a write owes to an image: those of the base, and a projection of them for each other version."""

    base_id: int
    projections: dict[int, Projection]

    def of_base(self, vectors: NDArray[np.float32]) -> dict[int, NDArray[np.float32]]:
        """Vectors (n, width) of n images under every version, from those of the base."""
        return {self.base_id: vectors, **{pk: one.apply(vectors) for pk, one in self.projections.items()}}


class Projections:
    """Projections by the number of their version; safe for threads. What a number stands for never changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Projection] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def get(self, session: Session, embedding_id: int) -> Projection:
        """The projection of a version that is one. Raises StateDamaged."""
        with self._lock:
            found = self._kept.get(embedding_id)
            if found is not None:
                self._kept.move_to_end(embedding_id)
                return found
        found = read_projection(session, embedding_id)
        with self._lock:
            self._kept[embedding_id] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def versions(self, session: Session, collection_id: int) -> Versions:
        """What a write to this collection owes, now. To be asked in a transaction that has locked its row."""
        base_id = base_of(session, collection_id)
        statement = select(EmbeddingRow.id).where(EmbeddingRow.base_id == base_id).order_by(EmbeddingRow.id)
        return Versions(base_id, {pk: self.get(session, pk) for pk in session.scalars(statement)})


def base_of(session: Session, collection_id: int) -> int:
    """The version whose vectors the active one of a collection is made from: itself where it is a network's own."""
    statement = (
        select(EmbeddingRow.id, EmbeddingRow.base_id)
        .join(CollectionRow, CollectionRow.embedding_id == EmbeddingRow.id)
        .where(CollectionRow.id == collection_id)
    )
    found = session.execute(statement).one()
    return int(found.id if found.base_id is None else found.base_id)


def family(session: Session, base_id: int) -> Sequence[EmbeddingRow]:
    """A base and the versions made from it, oldest first."""
    statement = select(EmbeddingRow).where(or_(EmbeddingRow.id == base_id, EmbeddingRow.base_id == base_id))
    return session.scalars(statement.order_by(EmbeddingRow.id)).all()


def read_projection(session: Session, embedding_id: int) -> Projection:
    """The projection of a version, from its parts. Raises StateDamaged."""
    row = session.get_one(EmbeddingRow, embedding_id)
    statement = select(EmbeddingPartRow.data).where(EmbeddingPartRow.embedding_id == embedding_id)
    data = b"".join(session.scalars(statement.order_by(EmbeddingPartRow.position)))
    return of_bytes(data, row.state_sha256 or "")


def of_bytes(data: bytes, sha256: str) -> Projection:
    """The projection that these bytes hold. Raises StateDamaged."""
    state = read_state(data, method=_NAME, sha256=sha256)
    found = Projection.of_arrays(state.arrays)
    if found.sha256() != state.values.get("sha256"):
        raise StateDamaged("The matrices of a projection must be those that were learnt; got others.")
    return found


def as_bytes(projection: Projection) -> bytes:
    """What `of_bytes` reads."""
    return state_bytes(_NAME, FittedState(arrays=projection.arrays(), values={"sha256": projection.sha256()}))


def add_parts(session: Session, embedding_id: int, data: bytes) -> None:
    """Store the bytes of a projection beside its version."""
    for position, start in enumerate(range(0, len(data), PART_BYTES)):
        part = data[start : start + PART_BYTES]
        session.add(EmbeddingPartRow(embedding_id=embedding_id, position=position, data=part))
    session.flush()
