"""POST /v1/collections/{c}/clean, /compress, /calibrate, and what shows and undoes them."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse

from app.dependencies import CoreDependency, KeyDependency, SlotsDependency
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName
from app.upkeep import cleaning, compression, service
from app.upkeep.schemas import CalibrateParameters, CleaningId, CleanParameters, CompressParameters

router = APIRouter(tags=["upkeep"])
Cleaning = Annotated[CleanParameters, Body(examples=[{"fraction": 0.1}, {"scorer": "mine"}])]
Compressing = Annotated[CompressParameters, Body(examples=[{"method": "coreset", "size": 1000}])]
Calibrating = Annotated[CalibrateParameters, Body(examples=[{}])]
NO_PARAMETERS = CalibrateParameters()


@router.post("/v1/collections/{c}/clean", status_code=202, responses=RESPONSES)
async def clean(
    c: CollectionName,
    parameters: Cleaning,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Take the strangest images out of the bank, by their distance from the rest or as a fitted scorer chose (job; can
    be undone)."""
    return await answer(
        core, slots, wake, await slots.run(service.submit_clean, core, c, parameters, key.over(parameters)), wait
    )


@router.get("/v1/collections/{c}/clean")
async def list_cleanings(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """Every cleaning of the collection, and what those that stand mean for calibration."""
    return await slots.run(cleaning.list_cleanings, core, c)


@router.get("/v1/collections/{c}/clean/{job}")
async def show_cleaning(
    c: CollectionName,
    job: CleaningId,
    core: CoreDependency,
    slots: SlotsDependency,
    cursor: Annotated[str, Query(pattern="^[0-9]{0,12}$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """One cleaning and the images it took out, strangest first."""
    return await slots.run(cleaning.show_cleaning, core, c, job, int(cursor or 0), limit)


@router.delete("/v1/collections/{c}/clean/{job}")
async def undo_cleaning(
    c: CollectionName, job: CleaningId, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """Put back the images that a cleaning took out, as far as nobody has changed their role since."""
    return await slots.run(cleaning.undo_cleaning, core, c, job)


@router.post("/v1/collections/{c}/compress", status_code=202, responses=RESPONSES)
async def compress(
    c: CollectionName,
    parameters: Compressing,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Let a small bank stand for the whole one, and report what that costs in accuracy (job; can be undone)."""
    return await answer(
        core, slots, wake, await slots.run(service.submit_compress, core, c, parameters, key.over(parameters)), wait
    )


@router.get("/v1/collections/{c}/compress")
async def show_compression(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """The small bank, its measured cost, and what has come and gone since."""
    return await slots.run(compression.show_compression, core, c)


@router.delete("/v1/collections/{c}/compress", status_code=204)
async def drop_compression(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> None:
    """Go back to the whole bank, which was kept."""
    await slots.run(compression.drop_compression, core, c)


@router.post("/v1/collections/{c}/calibrate", status_code=202, responses=RESPONSES)
async def calibrate(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    parameters: Calibrating = NO_PARAMETERS,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Compute the calibration afresh, check the kept one against it, and show what it supports (job)."""
    return await answer(
        core, slots, wake, await slots.run(service.submit_calibrate, core, c, parameters, key.over(parameters)), wait
    )
