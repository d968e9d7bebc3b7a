"""POST /v1/collections/{c}/query."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.dependencies import CoreDependency, SlotsDependency
from app.names import CollectionName
from app.openapi import images_body
from app.search import service
from app.search.schemas import QueryParameters

router = APIRouter(tags=["search"])
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
async def query(c: CollectionName, request: Request, core: CoreDependency, slots: SlotsDependency) -> JSONResponse:
    """The nearest images: what looks like this?"""
    body = await read_body(request, core.settings)
    parameters = parse(QueryParameters, body.parameters)
    answer, status = await slots.run(service.query, core, c, body.uploads, parameters)
    return JSONResponse(answer, status_code=status)
