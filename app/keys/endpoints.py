"""POST, GET /v1/keys; GET, DELETE /v1/keys/{id}; POST /v1/keys/{id}/rotate; GET /v1/audit. For admins."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from app.dependencies import CoreDependency, DoorsDependency, SlotsDependency
from app.keys import service
from app.keys.schemas import KeyId, KeyParameters, RotateParameters

router = APIRouter(tags=["keys"])
Making = Annotated[
    KeyParameters,
    Body(examples=[{"name": "camera-7", "scopes": ["read", "write"], "collections": ["line-7-*"]}]),
]
Rotating = Annotated[RotateParameters, Body(examples=[{"keep_s": 3600}])]
AT_ONCE = RotateParameters()


@router.post("/v1/keys", status_code=201, responses={409: {"description": "There is, or was, a key of this name."}})
async def create_key(
    parameters: Making, core: CoreDependency, slots: SlotsDependency, doors: DoorsDependency
) -> dict[str, Any]:
    """Make a key. `token` is in this answer and nowhere else; only a hash of it is kept.

    No Idempotency-Key is taken: the answer, which would have to be kept, holds the token.
    """
    key, token = await slots.run(service.create_key, core.database, parameters, core.clock())
    await slots.run(doors.keyring.look)
    return {**key, "token": token}


@router.get("/v1/keys")
async def list_keys(core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """All keys in the order in which they were made, revoked ones too, without their tokens."""
    return {"keys": await slots.run(service.list_keys, core.database, core.clock())}


@router.get("/v1/keys/{id}")
async def get_key(key: KeyId, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """One key, without its token."""
    return await slots.run(service.get_key, core.database, key, core.clock())


@router.post("/v1/keys/{id}/rotate", responses={409: {"description": "The key is revoked."}})
async def rotate_key(
    key: KeyId, core: CoreDependency, slots: SlotsDependency, doors: DoorsDependency, parameters: Rotating = AT_ONCE
) -> dict[str, Any]:
    """Give a key another token, shown in this answer only. The one before may stay good for a while."""
    changed, token = await slots.run(service.rotate_key, core.database, key, parameters.keep_s, core.clock())
    await slots.run(doors.keyring.look)
    return {**changed, "token": token}


@router.delete("/v1/keys/{id}")
async def revoke_key(
    key: KeyId, core: CoreDependency, slots: SlotsDependency, doors: DoorsDependency
) -> dict[str, Any]:
    """End a key, in every process within a second. It stays listed, and its name taken, for the audit log."""
    revoked = await slots.run(service.revoke_key, core.database, key, core.clock())
    await slots.run(doors.keyring.look)
    return revoked


@router.get("/v1/audit")
async def read_audit(
    doors: DoorsDependency,
    slots: SlotsDependency,
    cursor: Annotated[str, Query(pattern="^([0-9]{1,9}-[0-9]{1,12})?$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """What was written by whom, and what keys were used for, newest first; of this server's data folder."""
    before = None
    if cursor:
        number, _, line = cursor.partition("-")
        before = (int(number), int(line))
    entries, following = await slots.run(doors.ledger.read, before, limit)
    return {"entries": entries, "next": None if following is None else f"{following[0]}-{following[1]}"}
