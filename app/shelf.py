"""Collections in memory: derived from the record, always rebuildable, one step behind it at most.

A `CollectionState` mirrors one collection: its images' facts, the live `dn2` scorer with its bank, and an index of the
images outside the bank. It changes only by following the record (`Shelf.follow`), the same way after this process's own
writes and after those of other processes.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from app.collection_state import CollectionState, CompressedBank, GroupEntry
from app.collections.repository import require
from app.db.engine import Database
from app.db.tables import CollectionRow
from app.entry_columns import ImageEntry, image_key
from app.errors import Busy, NotFound
from app.indexing.files import IndexFiles
from app.observe import stage
from app.replay import catch_up, expected_bytes, load, must_reload
from models.batching import BatchingEmbedder
from models.errors import StateDamaged

__all__ = ["CollectionState", "CompressedBank", "GroupEntry", "ImageEntry", "Shelf", "image_key"]

log = logging.getLogger("oddity.shelf")
LOADING_LOCKS = 64  # names share them by hash: a lock for each name ever asked for would never be freed
LOOK_EVERY_S = 0.02
FOLLOW_WAIT_S = 5.0
RENEW_AGAIN_S = 1.0
NEWEST = "SELECT sequence, index_version, embedding_id FROM collections WHERE id = :id"


class Shelf:
    """Collection states by name, loaded on first use and kept while memory allows; safe for threads.

    The least recently used states make room when all together take more than `budget_bytes` (None: no limit). Whoever
    is looking at a state that makes room keeps it until done. A single collection larger than the budget is kept alone.
    """

    def __init__(
        self,
        database: Database,
        budget_bytes: int | None = None,
        wait_s: float = FOLLOW_WAIT_S,
        monotonic: Callable[[], float] = time.monotonic,
        files: IndexFiles | None = None,
    ) -> None:
        self._files = files
        self._database = database
        self._budget_bytes = budget_bytes
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._states: OrderedDict[str, CollectionState] = OrderedDict()  # least recently used first
        self._sizes: dict[str, int] = {}
        self._total = 0
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(LOADING_LOCKS)]
        self._renewing: dict[str, threading.Thread] = {}
        self._closing = threading.Event()

    def get(self, name: str, after: int | None = None) -> CollectionState:
        """The state of a collection, following everything committed before this call.

        With `after` it waits, for a bounded time, until the record has come to that sequence: what a caller that knows
        the number of a write asks of a process that may see the record late.

        Raises:
            NotFound: there is no such collection.
            Busy: the record has not come to `after` in time.
        """
        state = self._current(name)
        if after is None or _has_come_to(state, after):
            return state
        until = self._monotonic() + self._wait_s
        while self._monotonic() < until:
            time.sleep(LOOK_EVERY_S)
            state = self._current(name)
            if _has_come_to(state, after):
                return state
        raise Busy(
            f"`after`: the record of `{name}` is at change {state.sequence} here and did not come to {after} within "
            f"{self._wait_s:g} s; try again shortly.",
            "sequence_not_reached",
        )

    def follow(self, state: CollectionState) -> CollectionState | None:
        """Bring a state up to the record; None (and forgotten) when it must be loaded afresh or is gone."""
        newest = self._database.row(NEWEST, id=state.id)
        if newest is not None:
            sequence, index_version, embedding_id = newest
            if state.index_version < index_version or state.embedding_id != embedding_id:
                self._renew_soon(state)
            if state.sequence >= sequence:
                return state
        with stage("follow"), state.following, self._database.read() as session:
            row = session.get(CollectionRow, state.id)
            if row is None or must_reload(session, row, state):
                self.forget(state)
                return None
            if row.sequence > state.sequence:
                catch_up(session, state, row)
        self.account(state)
        return state

    def load(self, name: str) -> CollectionState:
        """A state of the caller's own, as the record has the collection now; nobody else sees it. Raises NotFound."""
        with self._database.read() as session:
            return load(session, require(session, name), self._files)

    def network_of(self, name: str) -> BatchingEmbedder | None:
        """What computed the last vectors to be compared with a collection's, where both are in memory.

        Nothing is read, so that an event loop may ask; another may be needed by now.
        """
        with self._lock:
            state = self._states.get(name)
        return None if state is None or state.network is None else state.network()

    def close(self) -> None:
        """Wait for states that are being renewed; none is begun any more."""
        self._closing.set()
        with self._lock:
            threads = list(self._renewing.values())
        for thread in threads:
            thread.join()

    def forget(self, state: CollectionState) -> None:
        """Drop a state; the next `get` loads it again."""
        with self._lock:
            if self._states.get(state.name) is state:
                self._discard(state.name)

    def drop(self, name: str) -> None:
        """Free the memory of a collection that was deleted."""
        with self._lock:
            if name in self._states:
                self._discard(name)

    def loaded(self) -> list[CollectionState]:
        """The collections in memory, least recently used first."""
        with self._lock:
            return list(self._states.values())

    def memory(self) -> tuple[int, int]:
        """How many collections are in memory, and how many bytes they take, roughly."""
        with self._lock:
            return len(self._states), self._total

    def _current(self, name: str) -> CollectionState:
        state = self._known(name)
        if state is not None:
            state = self.follow(state)
            if state is not None:
                return state
        with self._loading[hash(name) % LOADING_LOCKS]:
            # Loaded while this call waited; perhaps begun before it, and so without a write that its caller knows of.
            state = self._known(name)
            if state is not None and (state := self.follow(state)) is not None:
                return state
            with self._database.read() as session:
                row = require(session, name)
                if self._states and self._budget_bytes is not None:  # counting a million images takes a moment
                    self._make_room(expected_bytes(session, row))
                with stage("load"):
                    state = load(session, row, self._files)
            with self._lock:
                self._states[name] = state
            self.account(state)
            return state

    def _renew_soon(self, state: CollectionState) -> None:
        """Load the collection again beside the state that serves it, and change over: to a new file, or embedding."""
        with self._lock:
            if state.name in self._renewing or self._states.get(state.name) is not state or self._closing.is_set():
                return
            thread = threading.Thread(target=self._renew, args=(state,), name="renew-state", daemon=True)
            self._renewing[state.name] = thread
        thread.start()

    def _renew(self, state: CollectionState) -> None:
        try:
            fresh = self.load(state.name)
            with self._lock:
                is_served = self._states.get(state.name) is state
                if is_served and fresh.id == state.id:
                    self._states[state.name] = fresh
            self.account(fresh)
            log.info("`%s` is served from a state as of change %s", fresh.name, fresh.sequence)
        except NotFound:
            pass  # deleted meanwhile; whoever asks next is told
        except (SQLAlchemyError, StateDamaged):
            log.warning("`%s` could not be renewed; it is tried again", state.name, exc_info=True)
            self._closing.wait(RENEW_AGAIN_S)
        finally:
            with self._lock:
                del self._renewing[state.name]

    def _known(self, name: str) -> CollectionState | None:
        with self._lock:
            state = self._states.get(name)
            if state is not None:
                self._states.move_to_end(name)
            return state

    def account(self, state: CollectionState) -> None:
        """Count a state anew, and make room for what it has grown by: also when looking at it made it larger."""
        size = state.memory_bytes()
        with self._lock:
            if self._states.get(state.name) is state:
                self._total += size - self._sizes.get(state.name, 0)
                self._sizes[state.name] = size
        self._make_room(0, kept=state.name)

    def _make_room(self, expected: int, kept: str | None = None) -> None:
        """Drop least recently used states until so many more bytes fit into the budget, or none is left to drop."""
        if self._budget_bytes is None:
            return
        with self._lock:
            for name in list(self._states):
                if self._total + expected <= self._budget_bytes:
                    return
                if name != kept:
                    self._discard(name)
            if self._total + expected > self._budget_bytes:
                log.warning(
                    "one collection takes more than the memory budget: %s of %s bytes",
                    self._total + expected,
                    self._budget_bytes,
                )

    def _discard(self, name: str) -> None:
        del self._states[name]
        self._total -= self._sizes.pop(name, 0)


def _has_come_to(state: CollectionState, after: int) -> bool:
    """Whether a state shows everything up to this change, the embedding that was active then included."""
    return state.sequence >= after and (state.superseded_at is None or after < state.superseded_at)
