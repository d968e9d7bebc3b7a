"""/healthz: the process answers. /readyz: the record and the default embedder are usable."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from app.core import Core
from app.dependencies import CoreDependency, SlotsDependency
from app.errors import problem
from models.errors import ModelsError

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Something needed is not usable; `checks` says what."}})
async def readyz(core: CoreDependency, slots: SlotsDependency) -> JSONResponse:
    """Whether requests would be served: record reachable, weights loaded."""
    checks = await slots.run(_checks, core)
    faults = [f"{name}: {check}" for name, check in checks.items() if check != "ok"]
    if faults:
        return problem(503, "not_ready", "; ".join(faults), "/readyz", checks=checks)
    return JSONResponse({"status": "ready", "checks": checks})


def _checks(core: Core) -> dict[str, Any]:
    checks = {"record": "ok", "embedding": "ok"}
    try:
        core.database.check()
    except SQLAlchemyError as error:
        checks["record"] = type(error).__name__
    try:
        core.embedders.get_default()
    except ModelsError as error:
        checks["embedding"] = str(error)
    return checks
