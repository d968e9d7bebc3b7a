"""POST, GET, DELETE /v1/collections/{c}/feedback, and GET /v1/collections/{c}/feedback/next-pair."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.dependencies import CoreDependency, KeyDependency, SlotsDependency, replayed
from app.feedback import asking, service
from app.feedback.schemas import QUESTIONS_MAX, FeedbackId, FeedbackParameters
from app.names import CollectionName

router = APIRouter(tags=["feedback"])
_FIELDS = {
    "kind": {"type": "string", "enum": ["false_alarm", "missed", "confirmed", "pair", "rating"]},
    "id": {"type": "string", "description": "A stored image; with a file: the id to store it under."},
    "left": {"type": "string", "description": "pair: one stored image."},
    "right": {"type": "string", "description": "pair: the other stored image."},
    "answer": {
        "type": "string",
        "enum": ["left", "right", "same", "cannot_say"],
        "description": "pair: which of the two is more anomalous.",
    },
    "value": {"type": "number", "description": "rating: how anomalous `id` is; larger is more, on any scale."},
    "rater": {"type": "string", "description": "Who says so; a rating needs it."},
    "note": {"type": "string", "description": "Free text for people."},
}
_FILE = {"files": {"type": "string", "format": "binary", "description": "One image, when it is not stored yet."}}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["kind"], "properties": _FIELDS},
                "examples": {
                    "verdict": {"value": {"kind": "missed", "id": "part-17", "note": "scratch at the rim"}},
                    "pair": {"value": {"kind": "pair", "left": "part-17", "right": "part-4", "answer": "left"}},
                    "rating": {"value": {"kind": "rating", "id": "part-17", "value": 4, "rater": "anna"}},
                },
            },
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["kind", "files"], "properties": {**_FILE, **_FIELDS}}
            },
        },
    }
}


@router.post(
    "/v1/collections/{c}/feedback",
    status_code=201,
    responses={404: {"description": "There is no such image."}, 422: {"description": "Not exactly one image."}},
    openapi_extra=BODY,
)
async def give_feedback(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
) -> JSONResponse:
    """Say that an alarm was false, a defect was missed or an alarm was right; the next score knows it.

    Or say which of two stored images is more anomalous (`pair`), or how anomalous one is (`rating`): scorers that need
    `pairs` or `ratings` learn from that when they are fitted next.
    """
    body = await read_body(request, core.settings)
    parameters = parse(FeedbackParameters, body.parameters)
    keyed = key.over(body.digest)
    answer, is_repeat = await slots.run(service.give_feedback, core, c, body.uploads, parameters, keyed)
    headers = {"Location": f"{quote(request.scope['path'])}/{answer['id']}", **replayed(is_repeat)}
    return JSONResponse(answer, status_code=201, headers=headers)


@router.get("/v1/collections/{c}/feedback")
async def list_feedback(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    cursor: Annotated[str, Query(pattern="^([0-9a-f]{32})?$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Feedback on a collection, newest first, undone ones too."""
    feedback, following = await slots.run(service.list_feedback, core, c, cursor, limit)
    return {"feedback": feedback, "next": following}


@router.get(
    "/v1/collections/{c}/feedback/next-pair",
    responses={409: {"description": "Fewer than two images, or the scorer named is not fitted."}},
)
async def next_pair(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    scorer: Annotated[
        str | None, Query(max_length=128, description="The fitted scorer that chooses; unset: the newest that can.")
    ] = None,
    rater: Annotated[
        str | None, Query(max_length=128, description="Who will answer; people who ask at once get other pairs.")
    ] = None,
    n: Annotated[int, Query(ge=1, le=QUESTIONS_MAX, description="How many pairs, at most.")] = 1,
) -> dict[str, Any]:
    """Which two images to compare next: the pair whose answer would tell the scorer most, looked for among 512."""
    return await slots.run(asking.next_pairs, core, c, scorer, rater, n)


@router.get("/v1/collections/{c}/feedback/{id}")
async def get_feedback(
    c: CollectionName, feedback_id: FeedbackId, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """One feedback and what it changed."""
    return await slots.run(service.get_feedback, core, c, feedback_id)


@router.delete("/v1/collections/{c}/feedback/{id}")
async def undo_feedback(
    c: CollectionName, feedback_id: FeedbackId, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """Take a feedback back: the role is as before, an image that it brought is removed."""
    return await slots.run(service.undo_feedback, core, c, feedback_id)
