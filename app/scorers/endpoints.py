"""GET /v1/scorers and GET /v1/scorers/{id}: the methods' cards."""

from typing import Any

from fastapi import APIRouter

from app.dependencies import CoreDependency

router = APIRouter(tags=["scorers"])


@router.get("/v1/scorers")
async def list_scorers(core: CoreDependency) -> dict[str, Any]:
    """Every method that can score, with its paper, needs, gives and parameters."""
    return {"scorers": []}
