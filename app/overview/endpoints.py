"""GET /v1/collections/{c}/scores and /map: stored images at a glance."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.dependencies import CoreDependency, RefitsDependency, SlotsDependency
from app.names import After, CollectionName
from app.overview import service
from app.overview.schemas import Limit, OfRole, Rate
from models.plane import Layout

router = APIRouter(tags=["anomaly"])
TOO_SMALL: dict[int | str, dict[str, Any]] = {409: {"description": "The bank is too small to score."}}


@router.get("/v1/collections/{c}/scores", responses=TOO_SMALL)
async def list_scores(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    role: OfRole = None,
    false_alarm_rate: Rate = None,
    limit: Limit = 500,
    after: After = None,
) -> dict[str, Any]:
    """Stored images with their `dn2` scores, strangest first, and the scores that calibrate, ascending."""
    return await slots.run(service.list_scores, core, c, role, false_alarm_rate, limit, after)


@router.get("/v1/collections/{c}/map", responses=TOO_SMALL)
async def show_map(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    refits: RefitsDependency,
    layout: Annotated[
        Layout,
        Query(description="principal: the two widest directions; neighbours: t-SNE, which takes seconds."),
    ] = Layout.PRINCIPAL,
    limit: Limit = 500,
    after: After = None,
) -> dict[str, Any]:
    """Stored images on a plane, from -1 to 1, with their `dn2` scores: what lies near what."""
    # One slow map at a time and in a line of its own: whoever waits for it takes no slot from other requests.
    line = slots if layout is Layout.PRINCIPAL else refits
    return await line.run(service.show_map, core, c, layout, limit, after)
