"""POST /v1/collections/{c}/anomaly."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from app.ahead import embed_ahead
from app.bodies import parse, read_body
from app.dependencies import PartsDependency
from app.names import CollectionName
from app.openapi import images_body
from app.quick_route import QuickRoute
from app.scoring import service
from app.scoring.schemas import ScoreParameters

router = APIRouter(tags=["anomaly"], route_class=QuickRoute)

EXAMPLE = {
    "scorer": "dn2",
    "fingerprint": "5b1f…",
    "weights": "embedded",
    "k": 2,
    "metric": "cosine",
    "sequence": 12,
    "calibration": {
        "n": 200,
        "requested": 0.01,
        "supported": True,
        "false_alarm_rate": 0.00995,
        "threshold": 0.081,
        "spread": [0.0012, 0.0276],
        "biased": None,
    },
    "results": [
        {
            "score": 0.124,
            "p_value": 0.00498,
            "anomalous": True,
            "neighbours": [{"id": "part-17", "distance": 0.119, "metadata": {"filename": "part-17.jpg"}}],
            "known_anomaly": None,
        }
    ],
}


@router.post(
    "/v1/collections/{c}/anomaly",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE}}},
        207: {"description": "Some images could not be read; each has a `problem` in its place."},
        409: {"description": "The bank is too small to score."},
    },
    openapi_extra=images_body(
        scorer="Id of a scorer, default dn2.",
        k="DN2: mean distance to the k nearest normal images.",
        neighbours="How many nearest normal images are shown.",
        false_alarm_rate="Share of normal images that may alarm.",
        heatmap="true for a heat map, where the scorer gives one.",
        control="fdr adds `flagged`: Benjamini-Hochberg over the images of this request.",
        after="A `sequence` that a write answered: wait for a moment until this process knows it.",
        ids="JSON list of stored images to score instead of files.",
    ),
)
async def score_images(c: CollectionName, request: Request, parts: PartsDependency) -> JSONResponse:
    """Score images against the normal images of the collection: does this belong?"""
    core, slots = parts.core, parts.slots
    body = await read_body(request, core.settings)
    parameters = parse(ScoreParameters, body.parameters)
    async with slots.place():
        found: tuple[dict[str, Any], int] | None = None
        if slots.are_shared and service.may_go_together(parameters):
            image = await embed_ahead(core, c, body.uploads)
            if image is not None:
                work = partial(service.score_together, core, c, parameters)
                found = await slots.together(("anomaly", c, parameters), image, work)
        if found is None:
            found = await slots.in_thread(partial(service.score_images, core, c, body.uploads, parameters))
    answer, status = found
    return JSONResponse(answer, status_code=status)
