"""The keys of the record, held in memory and looked after twice a second while requests come.

A key that is made, rotated or revoked anywhere counts here within that time. While the record cannot be read nobody is
let in, since a key might have been revoked.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime

import anyio
import anyio.to_thread
from sqlalchemy import select

from app.access.caller import EVERYTHING, Caller
from app.access.tokens import digest, id_of, is_same
from app.clock import Clock
from app.db.engine import Database
from app.db.tables import AccessRow, ApiKeyRow

LOOK_EVERY_S = 0.5
VERSION = select(AccessRow.version)
VERSION_NOW = "SELECT version FROM access"  # the same as text: it is asked all the time
SETTING_KEY_ID = "setting"  # in the audit log: the key that a setting gives


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key; of its token only hashes."""

    caller: Caller
    digest: str
    former_digest: str | None
    former_until: datetime | None
    expires_at: datetime | None
    requests_per_s: float | None
    requests_per_day: int | None

    def opens(self, presented: str, now: datetime) -> bool:
        """Whether a token of this digest is this key's, today."""
        is_current = is_same(presented, self.digest)
        is_former = self.former_digest is not None and is_same(presented, self.former_digest)
        is_former = is_former and self.former_until is not None and now < self.former_until
        return (is_current or is_former) and (self.expires_at is None or now < self.expires_at)


class Keyring:
    """Finds the key of a token. Only the event loop calls `find`."""

    def __init__(self, database: Database, clock: Clock, admin_key: str | None = None) -> None:
        self._database = database
        self._clock = clock
        self._setting: Key | None = None
        if admin_key is not None:
            caller = Caller(SETTING_KEY_ID, "ODDITY_ADMIN_KEY", frozenset({"admin"}), (EVERYTHING,))
            self._setting = Key(caller, digest(admin_key), None, None, None, None, None)
        self._keys: dict[str, Key] = {}
        self._version: int | None = None
        self._looked_at = float("-inf")
        # Of two looks that overlap, the one that saw less could otherwise leave its keys under the other's version.
        self._looking = threading.Lock()
        self._thread = anyio.CapacityLimiter(1)  # its own: no other work makes it wait, and one look is enough

    async def find(self, token: str) -> Key | None:
        """The key that this token opens, None where it opens none. Raises what the record raises."""
        if self._setting is not None and is_same(digest(token), self._setting.digest):
            return self._setting
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            await anyio.to_thread.run_sync(self._look_again, limiter=self._thread)
        key = self._opened(token)
        if key is None and id_of(token) is not None:  # made or rotated a moment ago, perhaps by another process
            await anyio.to_thread.run_sync(self.look, limiter=self._thread)
            key = self._opened(token)
        return key

    def is_valid(self, key_id: str) -> bool:
        """Whether a key that was found before still stands; for answers that take long."""
        if key_id == SETTING_KEY_ID:
            return self._setting is not None
        key = self._keys.get(key_id)
        return key is not None and (key.expires_at is None or self._clock() < key.expires_at)

    def look(self) -> None:
        """Read what has changed in the record."""
        with self._looking:
            now = time.monotonic()
            (version,) = self._database.row(VERSION_NOW) or (None,)
            if version != self._version:
                with self._database.read() as session:
                    rows = session.scalars(select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None))).all()
                    # As of these rows, not of the look before: another change may have come between.
                    self._version = session.scalar(VERSION)
                self._keys = {row.id: _key(row) for row in rows}
            self._looked_at = now

    def has_keys(self) -> bool:
        """Whether anybody could be let in."""
        self.look()
        now = self._clock()
        return self._setting is not None or any(
            one.expires_at is None or now < one.expires_at for one in self._keys.values()
        )

    def _opened(self, token: str) -> Key | None:
        key_id = id_of(token)
        key = None if key_id is None else self._keys.get(key_id)
        return key if key is not None and key.opens(digest(token), self._clock()) else None

    def _look_again(self) -> None:
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:  # whoever waited for a look need not look
            self.look()


def _key(row: ApiKeyRow) -> Key:
    return Key(
        caller=Caller(row.id, row.name, frozenset(row.scopes), tuple(row.collections)),
        digest=row.secret_sha256,
        former_digest=row.former_sha256,
        former_until=row.former_until,
        expires_at=row.expires_at,
        requests_per_s=row.requests_per_s,
        requests_per_day=row.requests_per_day,
    )
