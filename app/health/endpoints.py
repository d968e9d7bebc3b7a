"""/healthz: the process answers. /readyz: the record and the default embedder are usable."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from app.core import Core
from app.dependencies import CoreDependency, SlotsDependency
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
    is_ready = all(check == "ok" for check in checks.values())
    return JSONResponse({"status": "ready" if is_ready else "not ready", "checks": checks}, 200 if is_ready else 503)


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
