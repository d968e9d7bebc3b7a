"""Idempotency-Key: a repeated write gets the first answer and changes nothing.

The answer is stored in the transaction of the write itself, so it exists exactly when the write does.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import to_json
from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from app.access.caller import current
from app.clock import Clock
from app.db.engine import Database
from app.db.statements import insert_unless_there
from app.db.tables import IdempotencyRow
from app.errors import Conflict, Invalid


@dataclass(frozen=True, slots=True)
class Request:
    """A write under a key: where, which key, and a hash of what was sent.

    Callers have keys of their own: nobody gets the answer to what another has sent.
    """

    scope: str
    key: str
    body_sha256: str

    @property
    def place(self) -> tuple[str, str]:
        """What the answer is kept under. The scope comes first: `forget` goes by its beginning."""
        caller = current.get().key_id
        return (self.scope if caller is None else f"{self.scope} {caller}", self.key)


@dataclass(frozen=True, slots=True)
class Key:
    """The Idempotency-Key that came with a request, if one did, and the method and path it came to."""

    scope: str
    key: str | None

    def over(self, sent: Any) -> Request | None:
        """The write under this key, or None without one.

        `sent` is what a repeat must send too: JSON types, models, or what computes them, asked only where there is a
        key.
        """
        if self.key is None:
            return None
        told = to_json(sent() if callable(sent) else sent)
        return Request(self.scope, self.key, hashlib.sha256(told).hexdigest())


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer given the first time."""

    status: int
    body: dict[str, Any]


class Idempotency:
    """Remembers answers for some hours; one request at a time may run under a key."""

    def __init__(self, database: Database, hours: float, clock: Clock) -> None:
        self._database = database
        self._keep = timedelta(hours=hours)
        self._clock = clock
        self._running: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @contextmanager
    def once(self, request: Request | None) -> Iterator[Answer | None]:
        """The answer given before, or None when the work is still to be done (inside this block).

        Raises Conflict while the same key is at work, Invalid when it came with another body.
        """
        if request is None:
            yield None
            return
        place = request.place
        with self._lock:
            if place in self._running:
                raise Conflict(
                    "A request with this Idempotency-Key is still running; wait for it.", "idempotency_running"
                )
            self._running.add(place)
        try:
            yield self._answered(request)
        finally:
            with self._lock:
                self._running.discard(place)

    def remember(self, session: Session, request: Request | None, answer: Answer) -> None:
        """Store the answer in the transaction of the write."""
        if request is None:
            return
        now = self._clock()
        session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < now - self._keep))
        scope, key = request.place
        values = {
            "scope": scope,
            "key": key,
            "body_sha256": request.body_sha256,
            "status": answer.status,
            "body": answer.body,
            "created_at": now,
        }
        # Not looked for first: what another process is about to commit could not be seen.
        made = insert_unless_there(session, IdempotencyRow, values).returning(IdempotencyRow.key)
        if session.scalar(made) is None:
            raise Conflict(
                "A request with this Idempotency-Key was answered just now; repeat yours to get that answer.",
                "idempotency_running",
            )

    def forget(self, session: Session, scope_start: str) -> None:
        """Forget the answers below a path that is deleted: under a new thing of that name they would be lies."""
        # Not LIKE: for SQLite `c` and `C` are alike there.
        begins = func.substr(IdempotencyRow.scope, 1, len(scope_start)) == scope_start
        session.execute(delete(IdempotencyRow).where(begins))

    def _answered(self, request: Request) -> Answer | None:
        with self._database.read() as session:
            row = session.get(IdempotencyRow, request.place)
        if row is None or row.created_at < self._clock() - self._keep:
            return None
        if row.body_sha256 != request.body_sha256:
            raise Invalid("This Idempotency-Key was used with another body; take a new key.", "idempotency_key_reused")
        return Answer(row.status, row.body)
