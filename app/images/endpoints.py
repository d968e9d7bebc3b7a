"""POST, GET, PATCH, DELETE /v1/collections/{c}/images."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.dependencies import CoreDependency, KeyDependency, SlotsDependency, replayed
from app.errors import Invalid
from app.images import service
from app.images.schemas import AddParameters, ChangeParameters, Role, Selection
from app.names import SEQUENCE_HEADER, After, CollectionName, ImageId, Name
from app.openapi import images_body

router = APIRouter(tags=["images"])
ImagePath = Annotated[ImageId, Path(alias="id", description="Id of the image.")]
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
# Stored bytes come from strangers: browsers must neither guess at them nor run them.
INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


@router.post(
    "/v1/collections/{c}/images",
    status_code=201,
    responses={207: {"description": "Some images were refused; the others are stored."}},
    openapi_extra=images_body(
        items="JSON text: one object for each file with id, role, label, group, metadata.",
        role="normal, anomalous, unlabelled or example, for all files.",
        label="Label of all files.",
        group="What all files belong to (part, camera, day): calibration leaves it out as a whole.",
        mode="upsert or insert_only.",
    ),
)
async def add_images(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
) -> JSONResponse:
    """Add images; they are durable and searchable when this answers. One bad file never loses the others."""
    body = await read_body(request, core.settings)
    parameters = parse(AddParameters, body.parameters)
    answer, is_repeat = await slots.run(service.add_images, core, c, body.uploads, parameters, key.over(body.digest))
    return JSONResponse(answer.body, status_code=answer.status, headers=replayed(is_repeat))


@router.get("/v1/collections/{c}/images")
async def list_images(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    cursor: Annotated[str, Query(pattern="^[0-9]{0,18}$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=service.MAX_LIMIT)] = 100,
    role: Role | None = None,
    label: Name | None = None,
    group: Name | None = None,
    filter: Annotated[str | None, Query(max_length=65536, description="Metadata filter as JSON text.")] = None,
    after: After = None,
) -> dict[str, Any]:
    """Images in order of arrival, page by page."""
    selection = parse(Selection, {"role": role, "label": label, "group": group, "filter": filter})
    images, following = await slots.run(service.list_images, core, c, selection, int(cursor or 0), limit, after)
    return {"images": images, "next": None if following is None else str(following)}


@router.post("/v1/collections/{c}/images/delete")
async def delete_images(
    c: CollectionName, core: CoreDependency, slots: SlotsDependency, selection: Selection
) -> dict[str, Any]:
    """Delete by ids, or by filter, role, label or group."""
    return await slots.run(service.delete_images, core, c, selection)


@router.get("/v1/collections/{c}/images/{id}")
async def get_image(
    c: CollectionName, image_id: ImagePath, core: CoreDependency, slots: SlotsDependency
) -> dict[str, Any]:
    """What is known of one image."""
    return await slots.run(service.get_image, core, c, image_id)


@router.get("/v1/collections/{c}/images/{id}/content", response_class=Response)
async def get_content(c: CollectionName, image_id: ImagePath, core: CoreDependency, slots: SlotsDependency) -> Response:
    """The bytes exactly as they were sent."""
    data, media_type, sha256 = await slots.run(service.get_content, core, c, image_id)
    return Response(data, media_type=media_type, headers={**FOREVER, **INERT, "ETag": f'"{sha256}"'})


@router.get("/v1/collections/{c}/images/{id}/thumbnail", response_class=Response)
async def get_thumbnail(
    c: CollectionName, image_id: ImagePath, core: CoreDependency, slots: SlotsDependency
) -> Response:
    """A small copy of the image."""
    data, sha256 = await slots.run(service.get_thumbnail, core, c, image_id)
    kind = "image/webp" if data[:4] == b"RIFF" else "image/jpeg"
    return Response(data, media_type=kind, headers={**FOREVER, **INERT, "ETag": f'"{sha256}-thumbnail"'})


@router.patch("/v1/collections/{c}/images/{id}")
async def change_image(
    c: CollectionName, image_id: ImagePath, core: CoreDependency, slots: SlotsDependency, change: ChangeParameters
) -> dict[str, Any]:
    """Change role, label, group or metadata. A role takes effect in the bank at once."""
    if not change.model_fields_set:
        raise Invalid("Give at least one of `role`, `label`, `group`, `metadata`.", "nothing_to_change")
    return await slots.run(service.change_image, core, c, image_id, change)


@router.delete("/v1/collections/{c}/images/{id}", status_code=204)
async def delete_image(
    c: CollectionName, image_id: ImagePath, core: CoreDependency, slots: SlotsDependency, response: Response
) -> None:
    """Delete one image."""
    response.headers[SEQUENCE_HEADER] = str(await slots.run(service.delete_image, core, c, image_id))
