"""The gate that every request passes before a byte of its body is read: whose is it, and may they?"""

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.caller import ANYBODY, STRANGER, Caller, current
from app.access.keyring import Keyring
from app.access.ledger import Ledger
from app.access.meter import Meter
from app.access.rules import COMPAT, SAFE, Need, needed
from app.errors import Forbidden, ServiceError, Unauthenticated, respond

Access = Literal["auto", "keys", "open"]
CALLER = "oddity.caller"  # in the ASGI scope
_AWS = re.compile(r"AWS4-HMAC-SHA256 +Credential=([^/,]+)/")
_NOT_ONE_BY_ONE = frozenset({401, 429})  # in the audit log: whoever is refused so could fill it


@dataclass(frozen=True, slots=True)
class Doorkeepers:
    """What the gate asks; made when the service opens."""

    keyring: Keyring
    meter: Meter
    ledger: Ledger


class Gate:
    """ASGI middleware: finds the caller, refuses what that caller may not do, and has the rest written down.

    `keys` asks everybody for a key, `open` nobody. `auto` asks for one wherever a connection comes in on an address
    that is not this machine's own, and there refuses what a web page of somebody else could make a browser send.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "websocket":  # there are none, and none may slip past
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        doors: Doorkeepers = scope["app"].state.doors
        need = needed(scope["method"], scope["path"])
        status = 500

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope[CALLER] = STRANGER
        try:
            try:
                scope[CALLER] = await self._caller(scope, need, doors)
                _check(scope[CALLER], need)
            except (ServiceError, SQLAlchemyError) as error:
                answer = await respond(Request(scope), error)
                await answer(scope, receive, answering)
                return
            token = current.set(scope[CALLER])
            try:
                await self.app(scope, receive, answering)
            finally:
                current.reset(token)
        finally:
            self._write_down(scope, need, status, time.perf_counter() - started, doors.ledger)

    async def _caller(self, scope: Scope, need: Need, doors: Doorkeepers) -> Caller:
        headers = dict(scope["headers"])
        if self.access == "open" or (self.access == "auto" and _is_within(scope)):
            _refuse_foreign_pages(scope, headers, is_guarded=self.access == "auto")
            return ANYBODY
        token = _presented(headers, scope["path"])
        if token is None:
            if need.scope is None:
                return STRANGER
            raise Unauthenticated("This service asks for an API key; send it as `Authorization: Bearer KEY`.")
        key = await doors.keyring.find(token)
        if key is None:
            raise Unauthenticated("The API key is unknown, revoked or expired.", "key_refused")
        scope[CALLER] = key.caller
        if need.scope is not None:
            doors.meter.admit(key)
        return key.caller

    @staticmethod
    def _write_down(scope: Scope, need: Need, status: int, seconds: float, ledger: Ledger) -> None:
        if need.scope is None:
            return
        caller: Caller = scope[CALLER]
        address = scope["client"][0] if scope.get("client") else None
        if caller is not ANYBODY:
            ledger.use(caller, address, status)
        if status in _NOT_ONE_BY_ONE or (need.scope == "read" and status != 403) or scope["method"] in SAFE:
            return
        ledger.note(
            {
                "event": "write",
                "request": scope.get("oddity.request"),
                "key": caller.key_id,
                "name": caller.name,
                "address": address,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
        )


def _check(caller: Caller, need: Need) -> None:
    if need.scope is None:
        return
    if need.collection is not None and not caller.sees(need.collection):
        raise Forbidden(
            f"Key `{caller.name}` is not for collection `{need.collection}`, whether there is one or not.",
            "collection_refused",
        )
    if not caller.may(need.scope):
        raise Forbidden(
            f"This takes a key with scope `{need.scope}`; `{caller.name}` has {', '.join(sorted(caller.scopes))}.",
            "scope_missing",
        )
    if need.everything and not caller.sees_everything:
        raise Forbidden(f"This takes a key for all collections; `{caller.name}` is for some.", "collection_refused")


def _presented(headers: dict[bytes, bytes], path: str) -> str | None:
    """The token that came with a request, in one of the places for it."""
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme == "AWS4-HMAC-SHA256" and path.startswith(f"/{COMPAT[0]}/"):
        # Clients of that service sign with a key pair; the id is the token, and the signature says nothing more.
        found = _AWS.match(authorization)
        return found[1] if found else ""
    given = headers.get(b"x-api-key")
    return None if given is None else given.decode("latin-1").strip()


def _is_within(scope: Scope) -> bool:
    """Whether a connection came in on this machine's own address, or on none at all."""
    server = scope.get("server")
    return server is None or _is_own_address(server[0])


@lru_cache(maxsize=256)
def _is_own_address(server: str) -> bool:
    """Whether nobody else reaches an address that a connection came in on."""
    try:
        return ip_address(server).is_loopback
    except ValueError:  # a socket's path, or a client in this process
        return True


def _refuse_foreign_pages(scope: Scope, headers: dict[bytes, bytes], *, is_guarded: bool) -> None:
    """A page from elsewhere can make the reader's browser send requests here, and pretend to be here by its name."""
    is_safe = scope["method"] in SAFE
    if not is_safe and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
        raise Forbidden("A page from another place may not write here.", "cross_site")
    if not is_guarded:
        return
    host = headers.get(b"host", b"").decode("latin-1")
    place = _address(f"//{host}")
    if host and (place is None or not _is_local_name(place.hostname)):
        raise Forbidden(
            f"`{host}` is not a name of this machine's own address. If a proxy that authenticates stands before the "
            "service, set ODDITY_ACCESS=open; otherwise ODDITY_ACCESS=keys and make a key.",
            "host_refused",
        )
    origin = headers.get(b"origin", b"").decode("latin-1")
    page = _address(origin)
    if not is_safe and origin and (page is None or page.netloc != host):
        raise Forbidden("A page from another place may not write here.", "cross_site")


def _address(given: str) -> SplitResult | None:
    """The parts of a URL; None where it is none, such as one with half a bracket."""
    try:
        return urlsplit(given)
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _is_local_name(name: str | None) -> bool:
    """Whether a host is an address, or a name that nobody outside can point here."""
    if name is None or "." not in name or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
