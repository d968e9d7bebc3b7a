"""GET /v1/collections/{c}/index and POST /v1/collections/{c}/compact."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse

from app.dependencies import CoreDependency, SlotsDependency
from app.idempotency import Request as KeyedRequest
from app.indexing import service
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName

router = APIRouter(tags=["upkeep"])
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="A repeat under the same key gets the first job.")
]


@router.get("/v1/collections/{c}/index")
async def show_index(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """What answers searches: structure, recall, live and dead entries, bytes, and the file a start goes on from.

    `damaged` names images whose stored vector is not the one that was stored: they are left out until sent again.
    """
    return await slots.run(service.show_index, core, c)


@router.post("/v1/collections/{c}/compact", status_code=202, responses=RESPONSES)
async def compact(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    wake: WakeDependency,
    wait: Wait = 0.0,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Drop what is dead, give memory and disk back, and report both (job)."""
    keyed = None
    if idempotency_key is not None:
        keyed = KeyedRequest(f"POST {request.url.path}", idempotency_key, hashlib.sha256(b"").hexdigest())
    return await answer(core, slots, wake, await slots.run(service.submit_compact, core, c, keyed), wait)
