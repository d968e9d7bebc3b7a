"""/healthz: the process answers. /readyz: requests would be served. /metrics: what Prometheus reads."""

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import choose_encoder

from app.access.caller import STRANGER
from app.dependencies import CallerDependency, ChecksDependency, CoreDependency, ProbesDependency
from app.errors import problem
from app.health.checks import OK

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Something needed is not usable; `checks` says what."}})
async def readyz(checks: ChecksDependency, probes: ProbesDependency, caller: CallerDependency) -> JSONResponse:
    """Whether requests would be served: record at hand and migrated, weights loaded, disk writable, worker alive.

    What is wrong is told to holders of a key only, where keys are asked for.
    """
    found = await probes.run(checks.run)
    faults = [f"{name}: {check}" for name, check in found.items() if check != OK]
    if caller is STRANGER:
        if faults:
            return problem(503, "not_ready", "The service is not ready.", "/readyz")
        return JSONResponse({"status": "ready"})
    if faults:
        return problem(503, "not_ready", "; ".join(faults), "/readyz", checks=found)
    return JSONResponse({"status": "ready", "checks": found})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
)
async def metrics(
    core: CoreDependency,
    probes: ProbesDependency,
    accept: Annotated[str, Header(description="Which of Prometheus's formats.")] = "",
) -> Response:
    """Counters, times and sizes for Prometheus."""
    encode, kind = choose_encoder(accept)
    text = await probes.run(encode, core.observing.instruments.registry)
    return Response(text, headers={"Content-Type": kind})
