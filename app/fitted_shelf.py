"""Fitted scorers in memory: loaded on first use from the record, kept while memory allows.

What a fit learnt never changes, so one that is loaded stays right for ever; which fit serves is asked of the record at
every request, so all processes change over at the same moment.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.db.tables import FitPartRow, FitRow, ScorerRow
from app.errors import Conflict, NotFound
from app.kept_scores import KeptScores
from models.catalog import installed
from models.contract import FittedScorer, MethodCard
from models.fitting import restored
from models.heat_maps import HeatScale
from models.inputs import StagesAsked

LOADING_LOCKS = 16


@dataclass(frozen=True, slots=True)
class LoadedFit:
    """A fit ready to score, with what judging it takes."""

    id: int
    card: MethodCard
    parameters: dict[str, Any]
    seed: int
    scorer: FittedScorer
    calibration: NDArray[np.float32]
    heat_scale: HeatScale | None
    sequence: int
    embedding_id: int
    fingerprint: str
    comparable_with: str | None
    """What vectors and maps it may be given must be comparable with; None where that was not kept."""
    answers: int | None
    """Comparisons that stood when it was fitted; None where that was not kept."""
    members: NDArray[np.int64]
    """Keys of the bank at that time, ascending: these images took part."""
    asked: StagesAsked
    scored: KeptScores
    """What it said of stored images."""
    memory_bytes: int


class FittedShelf:
    """Fits by number; safe for threads. The least recently used make room above `budget_bytes` (None: no limit)."""

    def __init__(self, database: Database, budget_bytes: int | None = None) -> None:
        self._database = database
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[int, LoadedFit] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(LOADING_LOCKS)]

    def serving(self, collection_id: int, name: str) -> LoadedFit | None:
        """The fit that serves under this name now; None when there is none.

        Raises Conflict and StateDamaged as `get`.
        """
        statement = select(ScorerRow.fit_id).where(ScorerRow.collection_id == collection_id, ScorerRow.name == name)
        for is_last in (False, True):
            fit_id = self._database.value(statement)
            if fit_id is None:
                return None
            try:
                return self.get(fit_id)
            except NotFound:  # replaced between the two looks
                if is_last:
                    raise
        raise AssertionError("unreachable")

    def get(self, fit_id: int) -> LoadedFit:
        """The fit of this number.

        Raises:
            NotFound: it was replaced or deleted a moment ago.
            Conflict: its method is not installed any more.
            StateDamaged: what is stored is not what was stored.
        """
        kept = self._known(fit_id)
        if kept is not None:
            return kept
        with self._loading[fit_id % LOADING_LOCKS]:
            kept = self._known(fit_id)  # loaded while this call waited
            if kept is not None:
                return kept
            with self._database.read() as session:
                loaded = _load(session, fit_id)
                gone = self._gone(session)
            with self._lock:
                for one in gone:
                    self._kept.pop(one, None)
                self._kept[fit_id] = loaded
                self._make_room(fit_id)
            return loaded

    def memory(self) -> tuple[int, int]:
        """How many fits are in memory, and how many bytes they take, roughly."""
        with self._lock:
            return len(self._kept), sum(one.memory_bytes for one in self._kept.values())

    def forget(self, fit_ids: list[int]) -> None:
        """Free the memory of fits that were deleted."""
        with self._lock:
            for one in fit_ids:
                self._kept.pop(one, None)

    def forget_deleted(self) -> None:
        """Free the memory of fits that the record does not hold any more."""
        with self._database.read() as session:
            gone = self._gone(session)
        self.forget(gone)

    def _known(self, fit_id: int) -> LoadedFit | None:
        with self._lock:
            kept = self._kept.get(fit_id)
            if kept is not None:
                self._kept.move_to_end(fit_id)
            return kept

    def _gone(self, session: Session) -> list[int]:
        """Fits in memory that any process has deleted since; looked for whenever another is loaded."""
        with self._lock:
            kept = list(self._kept)
        there = set(session.scalars(select(FitRow.id).where(FitRow.id.in_(kept)))) if kept else set()
        return [one for one in kept if one not in there]

    def _make_room(self, newest: int) -> None:
        if self._budget_bytes is None:
            return
        total = sum(one.memory_bytes for one in self._kept.values())
        for one in list(self._kept):
            if total <= self._budget_bytes or one == newest:
                return
            total -= self._kept.pop(one).memory_bytes


def _load(session: Session, fit_id: int) -> LoadedFit:
    row = session.get(FitRow, fit_id)
    if row is None:
        raise NotFound("The scorer was replaced or deleted just now; ask again.", "scorer_unknown")
    if row.method not in installed():
        raise Conflict(f"The method `{row.method}` of this scorer is not installed any more.", "method_not_installed")
    parts = session.scalars(select(FitPartRow.data).where(FitPartRow.fit_id == fit_id).order_by(FitPartRow.position))
    kind = installed().method(row.method)
    method = kind(kind.Params.parse(row.method, row.parameters))
    return LoadedFit(
        id=fit_id,
        card=installed()[row.method],
        parameters=row.parameters,
        seed=row.seed,
        scorer=restored(method, b"".join(parts), row.state_sha256),
        calibration=np.frombuffer(row.calibration, "<f4"),
        heat_scale=None
        if row.heat_low is None or row.heat_border is None
        else HeatScale(row.heat_low, row.heat_border),
        sequence=row.sequence,
        embedding_id=row.embedding_id,
        fingerprint=row.fingerprint,
        comparable_with=None if row.runtime is None else str(row.runtime["comparable_with"]),
        answers=row.answers,
        members=np.frombuffer(row.member_pks, "<i8"),
        asked=StagesAsked(),
        scored=KeptScores(),
        memory_bytes=row.state_bytes,
    )
