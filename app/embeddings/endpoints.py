"""POST, GET, DELETE /v1/collections/{c}/embeddings: versions of the embedding; /activate and /rollback."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse

from app.dependencies import CoreDependency, KeyDependency, SlotsDependency, replayed
from app.embeddings import service
from app.embeddings.schemas import Force, LearnParameters, Version
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName

router = APIRouter(tags=["embeddings"])
Learning = Annotated[LearnParameters, Body()]


@router.post("/v1/collections/{c}/embeddings", status_code=202, responses=RESPONSES)
async def learn_embedding(
    c: CollectionName,
    parameters: Learning,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Learn a new version from images with classes, measure it, and give every image its vector under it (job)."""
    return await answer(
        core, slots, wake, await slots.run(service.submit_learn, core, c, parameters, key.over(parameters)), wait
    )


@router.get("/v1/collections/{c}/embeddings")
async def list_embeddings(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """Every version, oldest first: the network's own vectors, and projections of them with their figures."""
    return {"embeddings": await slots.run(service.list_versions, core, c)}


@router.get("/v1/collections/{c}/embeddings/{v}")
async def get_embedding(
    c: CollectionName, version: Version, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """One version: state, fingerprint, what it was learnt from, figures before and after."""
    return await slots.run(service.get_version, core, c, version)


@router.post("/v1/collections/{c}/embeddings/{v}/activate")
async def activate_embedding(
    c: CollectionName,
    version: Version,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    force: Force = False,
) -> JSONResponse:
    """Answer by this version from now on; refused unless it is complete and better. The one before is kept."""
    keyed = key.over({"force": force})

    def work() -> tuple[dict[str, Any], bool]:
        return service.activate(core, c, version, force=force, request=keyed)

    body, is_repeat = await slots.run(work)
    return JSONResponse(body, headers=replayed(is_repeat))


@router.post("/v1/collections/{c}/embeddings/rollback")
async def roll_back_embedding(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
) -> JSONResponse:
    """Answer by the version that was active before."""
    body, is_repeat = await slots.run(service.roll_back, core, c, key.over(None))
    return JSONResponse(body, headers=replayed(is_repeat))


@router.delete("/v1/collections/{c}/embeddings/{v}", status_code=204)
async def delete_embedding(c: CollectionName, version: Version, core: CoreDependency, slots: SlotsDependency) -> None:
    """Delete a version that is not active, with its vectors; a job at work on it is cancelled."""
    await slots.run(service.delete_version, core, c, version)
