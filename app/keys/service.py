"""Making, listing, rotating and revoking keys, on the record alone: the first key needs no server."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.access.tokens import digest, new_id, new_token
from app.clock import shown
from app.db.engine import Database
from app.db.tables import ApiKeyRow
from app.errors import Conflict, Invalid, NotFound
from app.keys import repository
from app.keys.schemas import KeyParameters


def create_key(database: Database, parameters: KeyParameters, now: datetime) -> tuple[dict[str, Any], str]:
    """The new key and its token, which is never shown again. Raises Conflict where the name is taken."""
    expires_at = parameters.expires_at
    if expires_at is not None:
        try:
            expires_at = expires_at.astimezone(UTC).replace(tzinfo=None)
        except OverflowError as error:
            raise Invalid(f"`expires_at` must be in a year from 1 to 9999 in UTC; got {expires_at}.") from error
    if expires_at is not None and expires_at <= now:
        raise Invalid(f"`expires_at` must lie ahead; got {shown(expires_at)}.")
    key_id = new_id()
    token = new_token(key_id)
    with database.write() as session:
        repository.count_change(session)
        if repository.has_name(session, parameters.name):
            raise Conflict(
                f"There is, or was, a key `{parameters.name}`; rotate it, or take another name.", "key_name_taken"
            )
        row = ApiKeyRow(
            id=key_id,
            name=parameters.name,
            secret_sha256=digest(token),
            scopes=sorted(parameters.scopes),
            collections=list(parameters.collections),
            requests_per_s=parameters.requests_per_s,
            requests_per_day=parameters.requests_per_day,
            created_at=now,
            expires_at=expires_at,
        )
        session.add(row)
        session.flush()
        return _shown(row, now), token


def list_keys(database: Database, now: datetime) -> list[dict[str, Any]]:
    """All keys, revoked ones too, without their tokens."""
    with database.read() as session:
        return [_shown(row, now) for row in repository.every(session)]


def get_key(database: Database, name: str, now: datetime) -> dict[str, Any]:
    """The key of this id or name. Raises NotFound."""
    with database.read() as session:
        return _shown(_require(session, name), now)


def rotate_key(database: Database, name: str, keep_s: float, now: datetime) -> tuple[dict[str, Any], str]:
    """The key with another token, and that token; the one before is good for `keep_s` seconds more.

    Raises NotFound; Conflict where the key is revoked.
    """
    with database.write() as session:
        repository.count_change(session)
        row = _require(session, name)
        if row.revoked_at is not None:
            raise Conflict(f"Key `{row.name}` is revoked; make a new one.", "key_revoked")
        token = new_token(row.id)
        row.former_sha256 = row.secret_sha256 if keep_s else None
        row.former_until = now + timedelta(seconds=keep_s) if keep_s else None
        row.secret_sha256 = digest(token)
        row.rotated_at = now
        return _shown(row, now), token


def revoke_key(database: Database, name: str, now: datetime) -> dict[str, Any]:
    """The key after its end; revoking twice is one revoking. Raises NotFound."""
    with database.write() as session:
        repository.count_change(session)
        row = _require(session, name)
        if row.revoked_at is None:
            row.revoked_at = now
        return _shown(row, now)


def _require(session: Session, name: str) -> ApiKeyRow:
    row = repository.find(session, name)
    if row is None:
        raise NotFound(f"There is no key `{name}`.", "key_unknown")
    return row


def _state(row: ApiKeyRow, now: datetime) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "active"


def _shown(row: ApiKeyRow, now: datetime) -> dict[str, Any]:
    moments = ("created_at", "rotated_at", "expires_at", "revoked_at", "last_used_at")
    return {
        "id": row.id,
        "name": row.name,
        "state": _state(row, now),
        "scopes": row.scopes,
        "collections": row.collections,
        "requests_per_s": row.requests_per_s,
        "requests_per_day": row.requests_per_day,
        **{one: None if getattr(row, one) is None else shown(getattr(row, one)) for one in moments},
    }
