"""What an admin can ask of the service: API keys, and who wrote what."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from oddity_client.answers import ApiKey, AuditEntry, NewKey
from oddity_client.calls import Call, Plan, given, listed, operation, page_of, pages, reading, segment, streamed

KeyScope = Literal["read", "write", "admin"]


class KeyOperations:
    """Paths for admins. A key is called by its id or its name."""

    @operation
    def make_key(
        self,
        name: str,
        scopes: Sequence[KeyScope],
        *,
        collections: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        requests_per_s: float | None = None,
        requests_per_day: int | None = None,
    ) -> Call[NewKey]:
        """Make a key; its token is in this answer and nowhere else.

        Conflict can mean that an earlier try of this very call made it, and its answer was lost: then rotate it.
        """
        body = {
            "name": name,
            "scopes": list(scopes),
            "collections": None if collections is None else list(collections),
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "requests_per_s": requests_per_s,
            "requests_per_day": requests_per_day,
        }
        return Call("POST", "/v1/keys", reading(NewKey), json=given(body))

    @operation
    def api_keys(self) -> Call[list[ApiKey]]:
        """Every key, revoked ones too, without tokens."""
        return Call("GET", "/v1/keys", listed(ApiKey, "keys"))

    @operation
    def get_key(self, name: str) -> Call[ApiKey]:
        """One key, without its token."""
        return Call("GET", f"/v1/keys/{segment(name)}", reading(ApiKey))

    @operation
    def rotate_key(self, name: str, *, keep_s: float = 0.0) -> Call[NewKey]:
        """Give a key another token; the one before is good for `keep_s` seconds more."""
        return Call("POST", f"/v1/keys/{segment(name)}/rotate", reading(NewKey), json={"keep_s": keep_s})

    @operation
    def revoke_key(self, name: str) -> Call[ApiKey]:
        """End a key."""
        return Call("DELETE", f"/v1/keys/{segment(name)}", reading(ApiKey))

    @streamed
    def audit(self, *, page: int = 100) -> Plan[AuditEntry]:
        """What was written by whom, and what keys were used for, newest first."""
        return pages(Call("GET", "/v1/audit", page_of(AuditEntry, "entries"), query={"limit": page}))
