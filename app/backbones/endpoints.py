"""GET /v1/backbones: the networks that can be built, and the cards of their weights."""

from typing import Any

from fastapi import APIRouter

from app.dependencies import CoreDependency, SlotsDependency
from models.backbones.cards import backbone_cards

router = APIRouter(tags=["scorers"])


@router.get("/v1/backbones")
async def list_backbones(core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """Every backbone: widths of its stages, and its weights with their data, terms, figures and weaknesses."""
    return {"backbones": await slots.run(backbone_cards, core.settings.data / "weights")}
