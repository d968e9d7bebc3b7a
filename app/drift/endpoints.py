"""GET /v1/collections/{c}/drift."""

from typing import Any

from fastapi import APIRouter

from app.dependencies import CoreDependency, SlotsDependency
from app.drift import service
from app.drift.schemas import Against, Hours, Level, Rate, Scorer
from app.names import CollectionName

router = APIRouter(tags=["anomaly"])

EXAMPLE = {
    "collection": "parts",
    "scorer": "dn2",
    "scorers": ["dn2"],
    "since": "2026-01-05T13:00:00.000Z",
    "until": "2026-01-06T13:00:00.000Z",
    "against": "calibration",
    "level": 0.01,
    "n": 1200,
    "n_before": 1180,
    "n_needed": 30,
    "calibration_n": 400,
    "enough": True,
    "drifted": True,
    "direction": "stranger",
    "p_value": 0.0004,
    "spread": {"gap": 0.12, "p_value": 0.0002},
    "alarms": {"rate": 0.01, "seen": 61, "expected": 11.97, "p_value": 0.0011},
    "histogram": {"edges": [0.01, 0.05, 1.0], "counts": [61, 70, 1069], "expected": [11.97, 48.03, 1140.0]},
    "hours": [{"at": "2026-01-06T12:00:00.000Z", "n": 50, "alarms": 3, "expected": 0.5, "calibration_n": 400}],
}


@router.get("/v1/collections/{c}/drift", responses={200: {"content": {"application/json": {"example": EXAMPLE}}}})
async def show_drift(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    scorer: Scorer = "dn2",
    hours: Hours = 24,
    level: Level = 0.01,
    false_alarm_rate: Rate = None,
    against: Against = "calibration",
) -> dict[str, Any]:
    """Whether the images that are sent to be scored are still like the normal ones, told by the p-values served."""
    return await slots.run(service.show_drift, core, c, scorer, hours, level, false_alarm_rate, against)
