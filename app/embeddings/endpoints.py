"""POST, GET, DELETE /v1/collections/{c}/embeddings: versions of the embedding; /activate and /rollback."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.dependencies import CoreDependency, SlotsDependency
from app.embeddings import service
from app.embeddings.schemas import Force, LearnParameters, Version
from app.idempotency import Request as KeyedRequest
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName

router = APIRouter(tags=["embeddings"])
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="A repeat under the same key gets the first answer.")
]
Learning = Annotated[LearnParameters, Body()]


@router.post("/v1/collections/{c}/embeddings", status_code=202, responses=RESPONSES)
async def learn_embedding(
    c: CollectionName,
    parameters: Learning,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    wake: WakeDependency,
    wait: Wait = 0.0,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Learn a new version from images with classes, measure it, and give every image its vector under it (job)."""
    keyed = _keyed(request, idempotency_key, parameters)
    return await answer(core, slots, wake, await slots.run(service.submit_learn, core, c, parameters, keyed), wait)


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
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    force: Force = False,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Answer by this version from now on; refused unless it is complete and better. The one before is kept."""
    keyed = _keyed(request, idempotency_key, None, f"force={force}")

    def work() -> tuple[dict[str, Any], bool]:
        return service.activate(core, c, version, force=force, request=keyed)

    return _answered(*await slots.run(work))


@router.post("/v1/collections/{c}/embeddings/rollback")
async def roll_back_embedding(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Answer by the version that was active before."""
    return _answered(*await slots.run(service.roll_back, core, c, _keyed(request, idempotency_key, None)))


@router.delete("/v1/collections/{c}/embeddings/{v}", status_code=204)
async def delete_embedding(c: CollectionName, version: Version, core: CoreDependency, slots: SlotsDependency) -> None:
    """Delete a version that is not active, with its vectors; a job at work on it is cancelled."""
    await slots.run(service.delete_version, core, c, version)


def _answered(body: dict[str, Any], is_repeat: bool) -> JSONResponse:
    return JSONResponse(body, headers={"Idempotent-Replayed": "true"} if is_repeat else {})


def _keyed(request: Request, key: str | None, body: BaseModel | None, more: str = "") -> KeyedRequest | None:
    if key is None:
        return None
    sent = ("" if body is None else body.model_dump_json()) + more
    return KeyedRequest(
        scope=f"{request.method} {request.url.path}", key=key, body_sha256=hashlib.sha256(sent.encode()).hexdigest()
    )
