"""How a path answers that submits a job: 202 with `Location`, or 200 when its end was waited for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import JSONResponse

from app.core import Core
from app.dependencies import of_application, replayed
from app.errors import MOMENTARY
from app.jobs import service
from app.limits import Slots

LOOK_EVERY_S = 0.05
LOOK_SELDOM_S = 0.4
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Waited for (`wait`): the finished job."},
    202: {"description": "Queued: the job; `Location` names its path."},
}


WakeDependency = Annotated[Callable[[], None], Depends(of_application("wake_jobs"))]


async def answer(
    core: Core, slots: Slots, wake: Callable[[], None], submitted: tuple[dict[str, Any], bool], wait_s: float
) -> JSONResponse:
    """The answer to a submission, after waking the worker and waiting for the end as long as the caller asked."""
    job, is_repeat = submitted
    wake()
    left_s, pause_s = wait_s, LOOK_EVERY_S
    while left_s > 0 and not service.has_ended(job) and not slots.is_ending:
        await asyncio.sleep(min(pause_s, left_s))
        left_s, pause_s = left_s - pause_s, min(2 * pause_s, LOOK_SELDOM_S)  # many may wait, for long
        with suppress(*MOMENTARY):  # the job is queued all the same; the next look may suit better
            job = await slots.run(service.get_job, core, job["id"])
    headers = {"Location": f"/v1/jobs/{job['id']}", **replayed(is_repeat)}
    return JSONResponse(job, status_code=200 if wait_s and service.has_ended(job) else 202, headers=headers)
