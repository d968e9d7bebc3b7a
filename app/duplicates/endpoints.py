"""POST /v1/collections/{c}/duplicates, and what was found."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse

from app.dependencies import CoreDependency, KeyDependency, SlotsDependency
from app.duplicates import service
from app.duplicates.schemas import DuplicatesId, DuplicatesParameters, Level
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName

router = APIRouter(tags=["search"])
Searching = Annotated[DuplicatesParameters, Body(examples=[{"levels": ["exact_bytes", "exact_pixels", "near"]}])]
NO_PARAMETERS = DuplicatesParameters()


@router.post("/v1/collections/{c}/duplicates", status_code=202, responses=RESPONSES)
async def find_duplicates(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    parameters: Searching = NO_PARAMETERS,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Find images that are there more than once (job): same bytes, same pixels, near copies, similar ones."""
    submitted = await slots.run(service.submit_duplicates, core, c, parameters, key.over(parameters))
    return await answer(core, slots, wake, submitted, wait)


@router.get("/v1/collections/{c}/duplicates/{job}")
async def show_duplicates(
    c: CollectionName,
    job: DuplicatesId,
    core: CoreDependency,
    slots: SlotsDependency,
    level: Level | None = None,
    cursor: Annotated[str, Query(pattern="^[0-9]{0,18}$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """The sets that a job found, level by level, in pages that are counted in images."""
    return await slots.run(service.show_duplicates, core, c, job, level, int(cursor or 0), limit)
