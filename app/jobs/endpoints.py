"""GET /v1/jobs, /v1/jobs/{id}, /v1/jobs/{id}/events; POST /v1/jobs/{id}/cancel."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.access.caller import Caller
from app.access.keyring import Keyring
from app.core import Core
from app.dependencies import CallerDependency, CoreDependency, DoorsDependency, SlotsDependency
from app.errors import MOMENTARY, NotFound
from app.jobs import service
from app.jobs.schemas import JobId, State
from app.limits import Slots
from app.names import Name, Text

router = APIRouter(tags=["jobs"])
EVENT_EVERY_S = 1.0
SILENCE_MAX_EVENTS = 15  # then a comment is sent, so that no proxy takes the stream for dead


@router.get("/v1/jobs")
async def list_jobs(
    core: CoreDependency,
    slots: SlotsDependency,
    caller: CallerDependency,
    collection: Name | None = None,
    state: State | None = None,
    kind: Annotated[Text | None, Query(max_length=32)] = None,
    cursor: Annotated[str, Query(pattern="^([0-9a-f]{32})?$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Jobs on collections that the caller's key is for, newest first."""
    jobs, following = await slots.run(service.list_jobs, core, caller, collection, state, kind, cursor, limit)
    return {"jobs": jobs, "next": following}


@router.get("/v1/jobs/{id}")
async def get_job(
    job_id: JobId, core: CoreDependency, slots: SlotsDependency, caller: CallerDependency
) -> dict[str, Any]:
    """State, progress with rate and remaining seconds, and the result or the problem."""
    return await slots.run(service.get_job, core, job_id, caller)


@router.post("/v1/jobs/{id}/cancel")
async def cancel_job(
    job_id: JobId, core: CoreDependency, slots: SlotsDependency, caller: CallerDependency
) -> dict[str, Any]:
    """Ask for the end of a job: a queued one ends at once, a running one at its next step."""
    return await slots.run(service.cancel, core, job_id, caller)


@router.get(
    "/v1/jobs/{id}/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "One event at each change, at most one a second."}
    },
)
async def follow_job(
    job_id: JobId, core: CoreDependency, slots: SlotsDependency, caller: CallerDependency, doors: DoorsDependency
) -> StreamingResponse:
    """The job as server-sent events: `progress` while it runs, `end` with the last state, then the stream closes."""
    first = await slots.run(service.get_job, core, job_id, caller)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = _events(core, slots, first, caller, doors.keyring)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(
    core: Core, slots: Slots, job: dict[str, Any], caller: Caller, keyring: Keyring
) -> AsyncIterator[str]:
    told: dict[str, Any] | None = None
    silent = 0
    while not service.has_ended(job) and not slots.is_ending:
        if told is None or _changes(job) != _changes(told):
            yield _event("progress", job)
            told, silent = job, 0
        elif silent >= SILENCE_MAX_EVENTS:
            yield ": still here\n\n"
            silent = 0
        await asyncio.sleep(EVENT_EVERY_S)
        silent += 1
        try:
            if caller.key_id is not None:
                await slots.run(keyring.look)
                if not keyring.is_valid(caller.key_id):
                    return  # revoked or expired meanwhile
            job = await slots.run(service.get_job, core, job["id"], caller)
        except MOMENTARY:
            continue  # the service has better things to do, or its record is away; the next second may suit
        except NotFound:
            return  # deleted with its collection
    if service.has_ended(job):
        yield _event("end", job)


def _changes(job: dict[str, Any]) -> dict[str, Any]:
    """What of a job is news: not the rate, which changes by itself as time passes."""
    news = {name: job["progress"][name] for name in ("stage", "done", "total")}
    return {**news, "state": job["state"], "cancel_requested": job["cancel_requested"], "attempts": job["attempts"]}


def _event(kind: str, job: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(job)}\n\n"
