"""PUT, GET, PATCH, DELETE /v1/collections/{c} and GET /v1/collections."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response

from app.bodies import parse
from app.collections import service
from app.collections.settings import CollectionSettings
from app.dependencies import CallerDependency, CoreDependency, SlotsDependency
from app.names import After, CollectionName, Text

router = APIRouter(tags=["collections"])
IfMatch = Annotated[str | None, Header(description="Only when the collection still carries this ETag.")]
Given = Annotated[
    dict[str, Any] | None,
    Body(
        description="Settings to give; all are optional. Every setting and its default: `PUT` with `{}` shows them.",
        examples=[{"metric": "cosine", "k": 2, "neighbours": 3, "false_alarm_rate": 0.01}],
    ),
]


def _checked(given: dict[str, Any] | None, core: CoreDependency) -> dict[str, Any]:
    """Refuse unknown names and wrong values, with the full settings' own limits."""
    whole = {"backbone": core.embedders.default_backbone, "weights": core.embedders.default_weights}
    parse(CollectionSettings, {**whole, **(given or {})})
    return given or {}


@router.put("/v1/collections/{c}", status_code=200, responses={201: {"description": "Made."}})
async def put_collection(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    response: Response,
    given: Given = None,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Make a collection, or change the settings given; repeating it changes nothing."""
    answer, tag, is_new = await slots.run(service.put_collection, core, c, _checked(given, core), if_match)
    response.headers["ETag"] = tag
    response.status_code = 201 if is_new else 200
    return answer


@router.patch("/v1/collections/{c}")
async def patch_collection(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    response: Response,
    given: Given = None,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change settings. The embedding's own cannot change while there are images (409)."""
    answer, tag = await slots.run(service.patch_collection, core, c, _checked(given, core), if_match)
    response.headers["ETag"] = tag
    return answer


@router.get("/v1/collections/{c}")
async def get_collection(
    c: CollectionName, core: CoreDependency, slots: SlotsDependency, response: Response, after: After = None
) -> dict[str, Any]:
    """Settings, fingerprint of the embedding, counts and revision."""
    answer, tag = await slots.run(service.get_collection, core, c, after)
    response.headers["ETag"] = tag
    return answer


@router.get("/v1/collections")
async def list_collections(
    core: CoreDependency,
    slots: SlotsDependency,
    caller: CallerDependency,
    cursor: Annotated[Text, Query(max_length=128, description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """All collections that the caller's key is for, in order of name."""
    collections, following = await slots.run(service.list_collections, core, caller, cursor, limit)
    return {"collections": collections, "next": following}


@router.delete("/v1/collections/{c}", status_code=204)
async def delete_collection(
    c: CollectionName, core: CoreDependency, slots: SlotsDependency, if_match: IfMatch = None
) -> None:
    """Delete a collection with its images."""
    await slots.run(service.delete_collection, core, c, if_match)
