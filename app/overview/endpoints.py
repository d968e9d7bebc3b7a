"""GET /v1/collections/{c}/scores and /map: stored images at a glance."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.dependencies import CoreDependency, RefitsDependency, SlotsDependency
from app.names import After, CollectionName
from app.overview import service
from app.overview.schemas import Limit, OfRole, OfScorer, Rate
from app.scoring.service import LIVE_SCORER
from models.plane import Layout

router = APIRouter(tags=["anomaly"])
REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"description": "The bank is too small to score, or the scorer is not fitted."},
    503: {"description": "A fitted scorer is not through with the images yet: ask again to go on; `done`, `total`."},
}


@router.get("/v1/collections/{c}/scores", responses=REFUSED)
async def list_scores(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    refits: RefitsDependency,
    scorer: OfScorer = LIVE_SCORER,
    role: OfRole = None,
    false_alarm_rate: Rate = None,
    limit: Limit = 500,
    after: After = None,
) -> dict[str, Any]:
    """Stored images with their scores, strangest first, and the scores that calibrate, ascending.

    The first time that a fitted scorer is asked for, it looks at each image, which can take longer than an answer may:
    503 `still_scoring` then says how far it is. What it has found it keeps.
    """
    # Whoever waits for a fitted scorer takes no slot from other requests; so below for a slow map.
    line = slots if scorer == LIVE_SCORER else refits
    return await line.run(service.list_scores, core, c, scorer, role, false_alarm_rate, limit, after)


@router.get("/v1/collections/{c}/map", responses=REFUSED)
async def show_map(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    refits: RefitsDependency,
    layout: Annotated[
        Layout,
        Query(description="principal: the two widest directions; neighbours: t-SNE, which takes seconds."),
    ] = Layout.PRINCIPAL,
    scorer: OfScorer = LIVE_SCORER,
    limit: Limit = 500,
    after: After = None,
) -> dict[str, Any]:
    """Stored images on a plane, from -1 to 1, with their scores: what lies near what.

    A fitted scorer takes its time as in `/scores`.
    """
    line = slots if layout is Layout.PRINCIPAL and scorer == LIVE_SCORER else refits
    return await line.run(service.show_map, core, c, scorer, layout, limit, after)
