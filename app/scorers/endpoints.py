"""GET /v1/scorers[/{id}]: the methods' cards; PUT, GET, DELETE /v1/collections/{c}/scorers/{id}: those fitted."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from fastapi.responses import JSONResponse

from app.dependencies import CoreDependency, SlotsDependency
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName
from app.scorers import service
from app.scorers.schemas import FitParameters, ScorerName
from models.catalog import installed

router = APIRouter(tags=["scorers"])
Fit = Annotated[FitParameters, Body(examples=[{"params": {}, "seed": 0}])]
USUAL = FitParameters()


@router.get("/v1/scorers")
async def list_methods() -> dict[str, Any]:
    """Every method that is installed, with its paper, what it needs and gives, and its parameters."""
    return {"scorers": [installed().describe(name) for name in installed()]}


@router.get("/v1/scorers/{id}")
async def get_method(scorer: Annotated[str, Path(alias="id", max_length=64)]) -> dict[str, Any]:
    """The card of one method."""
    return installed().describe(scorer)


@router.put("/v1/collections/{c}/scorers/{id}", status_code=202, responses=RESPONSES)
async def put_scorer(
    c: CollectionName,
    scorer: ScorerName,
    core: CoreDependency,
    slots: SlotsDependency,
    wake: WakeDependency,
    parameters: Fit = USUAL,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Fit a method to the collection under this name (job); one that serves under it serves until that is done."""
    return await answer(core, slots, wake, await slots.run(service.put_scorer, core, c, scorer, parameters), wait)


@router.get("/v1/collections/{c}/scorers")
async def list_scorers(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """The scorers of the collection: live ones, and those fitted with their state and how stale they are."""
    return {"scorers": await slots.run(service.list_scorers, core, c)}


@router.get("/v1/collections/{c}/scorers/{id}")
async def get_scorer(
    c: CollectionName, scorer: ScorerName, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """One fitted scorer: fitting, ready or failed; what it was fitted on, and how stale it is."""
    return await slots.run(service.get_scorer, core, c, scorer)


@router.delete("/v1/collections/{c}/scorers/{id}", status_code=204)
async def delete_scorer(c: CollectionName, scorer: ScorerName, core: CoreDependency, slots: SlotsDependency) -> None:
    """Delete a fitted scorer and what it learnt; a fit under way is cancelled."""
    await slots.run(service.delete_scorer, core, c, scorer)
