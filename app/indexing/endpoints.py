"""GET /v1/collections/{c}/index and POST /v1/collections/{c}/compact."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.dependencies import CoreDependency, KeyDependency, SlotsDependency
from app.indexing import service
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName

router = APIRouter(tags=["upkeep"])


@router.get("/v1/collections/{c}/index")
async def show_index(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """What answers searches: structure, recall, live and dead entries, bytes, and the file a start goes on from.

    `damaged` names images whose stored vector is not the one that was stored: they are left out until sent again.
    """
    return await slots.run(service.show_index, core, c)


@router.post("/v1/collections/{c}/compact", status_code=202, responses=RESPONSES)
async def compact(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Drop what is dead, give memory and disk back, and report both (job)."""
    submitted = await slots.run(service.submit_compact, core, c, key.over(None))
    return await answer(core, slots, wake, submitted, wait)
