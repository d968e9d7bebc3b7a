"""GET /v1/scorers and GET /v1/scorers/{id}: the methods' cards."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from models.catalog import installed

router = APIRouter(tags=["scorers"])


@router.get("/v1/scorers")
async def list_scorers() -> dict[str, Any]:
    """Every method that is installed, with its paper, what it needs and gives, and its parameters."""
    return {"scorers": [installed().describe(name) for name in installed()]}


@router.get("/v1/scorers/{id}")
async def get_scorer(scorer: Annotated[str, Path(alias="id", max_length=64)]) -> dict[str, Any]:
    """The card of one method."""
    return installed().describe(scorer)
