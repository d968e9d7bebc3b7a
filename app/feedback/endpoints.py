"""POST, GET, DELETE /v1/collections/{c}/feedback."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.dependencies import CoreDependency, SlotsDependency
from app.feedback import service
from app.feedback.schemas import FeedbackId, FeedbackParameters
from app.idempotency import Request as KeyedRequest
from app.names import CollectionName

router = APIRouter(tags=["feedback"])
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="A repeat under the same key gets the first answer.")
]
_FIELDS = {
    "kind": {"type": "string", "enum": ["false_alarm", "missed", "confirmed"]},
    "id": {"type": "string", "description": "A stored image; with a file: the id to store it under."},
    "note": {"type": "string", "description": "Free text for people."},
}
_FILE = {"files": {"type": "string", "format": "binary", "description": "One image, when it is not stored yet."}}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["kind", "id"], "properties": _FIELDS},
                "example": {"kind": "missed", "id": "part-17", "note": "scratch at the rim"},
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
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Say that an alarm was false, a defect was missed or an alarm was right; the next score knows it."""
    body = await read_body(request, core.settings)
    parameters = parse(FeedbackParameters, body.parameters)
    keyed = KeyedRequest(f"POST {request.url.path}", idempotency_key, body.digest()) if idempotency_key else None
    answer, is_repeat = await slots.run(service.give_feedback, core, c, body.uploads, parameters, keyed)
    headers = {"Location": f"{quote(request.url.path)}/{answer['id']}"}
    if is_repeat:
        headers["Idempotent-Replayed"] = "true"
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
