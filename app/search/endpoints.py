"""POST /v1/collections/{c}/query."""

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
from app.search import service
from app.search.schemas import QueryParameters

router = APIRouter(tags=["search"], route_class=QuickRoute)
EXAMPLE = {
    "fingerprint": "5b1f…",
    "weights": "embedded",
    "metric": "cosine",
    "sequence": 12,
    "exact": True,
    "results": [[{"id": "part-17", "distance": 0.021, "metadata": {"filename": "part-17.jpg"}}]],
}


@router.post(
    "/v1/collections/{c}/query",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE}}},
        207: {"description": "Some images could not be read; each has a `problem` in its place."},
    },
    openapi_extra=images_body(
        id="A stored image: more like this.",
        ids="JSON list of stored images, one query each.",
        vector="JSON list of numbers, as wide as the embedding.",
        vectors="JSON list of such lists, one query each.",
        positive="JSON list of stored images that the answers should resemble.",
        negative="JSON list of stored images that the answers should not resemble.",
        k="How many, 1 to 1000; times the number of queries at most 100,000.",
        filter='JSON: {"must": [{"key": "line", "match": 3}], "should": […], "must_not": […]}.',
        max_distance="Leave out what is farther.",
        after="A `sequence` that a write answered: wait for a moment until this process knows it.",
        exact="true to search exhaustively.",
    ),
)
async def query(c: CollectionName, request: Request, parts: PartsDependency) -> JSONResponse:
    """The nearest images: what looks like this?"""
    core, slots = parts.core, parts.slots
    body = await read_body(request, core.settings)
    parameters = parse(QueryParameters, body.parameters)
    async with slots.place():
        found: tuple[dict[str, Any], int] | None = None
        alike = service.together_key(body.uploads, parameters) if slots.are_shared else None
        if alike is not None:
            image = await embed_ahead(core, c, body.uploads)
            if image is not None or not body.uploads:
                work = partial(service.query_together, core, c)
                found = await slots.together(("query", c, alike), (parameters, image), work)
        if found is None:
            found = await slots.in_thread(partial(service.query, core, c, body.uploads, parameters))
    answer, status = found
    return JSONResponse(answer, status_code=status)
