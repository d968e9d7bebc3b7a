"""PUT, GET, DELETE /v1/collections/{c}/groups/{g} and POST /v1/collections/{c}/groups/anomaly."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.dependencies import CoreDependency, SlotsDependency
from app.groups import service
from app.groups.schemas import GroupScoreParameters, RegisterParameters
from app.names import SEQUENCE_HEADER, CollectionName, Name
from app.openapi import images_body

router = APIRouter(tags=["groups"])
GroupName = Annotated[Name, Path(alias="g", description="Name of the group.")]


@router.put(
    "/v1/collections/{c}/groups/{g}",
    responses={
        201: {"description": "Registered."},
        207: {"description": "Registered without the files that were refused."},
    },
    openapi_extra=images_body(
        ids="JSON list of stored images instead of files, in order.",
        items="JSON text: one object for each file with id, label, metadata.",
        role="Role of new images, default normal.",
        metadata="JSON object kept with the group.",
    ),
)
async def put_group(
    c: CollectionName, group: GroupName, request: Request, core: CoreDependency, slots: SlotsDependency
) -> JSONResponse:
    """Register a normal set, in place of any earlier one of this name."""
    body = await read_body(request, core.settings)
    parameters = parse(RegisterParameters, body.parameters)
    answer, status = await slots.run(service.put_group, core, c, group, body.uploads, parameters)
    return JSONResponse(answer, status_code=status)


@router.get("/v1/collections/{c}/groups")
async def list_groups(c: CollectionName, core: CoreDependency, slots: SlotsDependency) -> dict[str, Any]:
    """Every registered group."""
    return {"groups": await slots.run(service.list_groups, core, c)}


@router.get("/v1/collections/{c}/groups/{g}")
async def get_group(
    c: CollectionName, group: GroupName, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """One registered group."""
    return await slots.run(service.get_group, core, c, group)


@router.delete("/v1/collections/{c}/groups/{g}", status_code=204)
async def delete_group(
    c: CollectionName, group: GroupName, core: CoreDependency, slots: SlotsDependency, response: Response
) -> None:
    """Forget a group; its images stay."""
    response.headers[SEQUENCE_HEADER] = str(await slots.run(service.delete_group, core, c, group))


@router.post(
    "/v1/collections/{c}/groups/anomaly",
    responses={207: {"description": "Some files could not be read; the set of the others is scored."}},
    openapi_extra=images_body(
        after="A `sequence` that a write answered: wait for a moment until this process knows it.",
        scorer="A scorer fitted to the collection: its scores of the images are pooled. Unset: dn2, of vectors.",
        pooling="mean, max or concat of the vectors, or excess of the images' own scores; of a fitted scorer's scores "
        "mean, max or excess.",
        k="Mean distance to the k nearest normal sets; with excess, of each image to the k nearest normal images.",
        neighbours="How many nearest normal sets are shown.",
        false_alarm_rate="Share of normal sets that may alarm.",
        ids="JSON list of stored images instead of files.",
    ),
)
async def score_group(
    c: CollectionName, request: Request, core: CoreDependency, slots: SlotsDependency
) -> JSONResponse:
    """Score a set of images against registered groups, or against sets of the same size drawn from the bank.

    With `pooling=excess` the images' own scores are pooled: what each has beyond the median normal image, root mean
    square. It tells sets with a few strange images best. Disjoint sets of normal images calibrate it, each image
    scored without its set. With `scorer` the scores of a fitted scorer are pooled, and judged against those of
    images that were held out of the fit.
    """
    body = await read_body(request, core.settings)
    parameters = parse(GroupScoreParameters, body.parameters)
    answer, status = await slots.run(service.score_group, core, c, body.uploads, parameters)
    return JSONResponse(answer, status_code=status)
