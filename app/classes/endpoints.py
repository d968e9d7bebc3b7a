"""PUT, GET, DELETE /v1/collections/{c}/classes/{label}, GET /classes and POST /classify."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.classes import registering, service
from app.classes.schemas import ClassifyParameters, RegisterParameters
from app.dependencies import CoreDependency, KeyDependency, RefitsDependency, SlotsDependency, replayed
from app.names import SEQUENCE_HEADER, After, CollectionName, Name
from app.openapi import images_body

router = APIRouter(tags=["classes"])
Label = Annotated[Name, Path(alias="label", description="Label of the class.")]

EXAMPLE = {
    "scorer": "few_shot_lr",
    "fingerprint": "5b1f…",
    "weights": "embedded",
    "metric": "cosine",
    "sequence": 31,
    "classes": 2,
    "calibration": {
        "n": 20,
        "requested": 0.05,
        "supported": True,
        "false_alarm_rate": 0.0476,
        "threshold": 0.161,
        "spread": [0.0012, 0.1684],
        "biased": None,
        "single_image_classes": 0,
        "probabilities": {"n": 20, "supported": True, "temperature": 0.083},
    },
    "results": [
        {
            "label": "scratch",
            "probabilities": {"scratch": 0.94, "dent": 0.06},
            "unknown": False,
            "p_value": 0.52,
            "score": 0.104,
            "nearest": [{"id": "s-3", "label": "scratch", "distance": 0.091, "metadata": {"filename": "s-3.jpg"}}],
        }
    ],
}


@router.put(
    "/v1/collections/{c}/classes/{label}",
    responses={
        200: {"description": "Extended or replaced."},
        201: {"description": "Made."},
        207: {"description": "Made, extended or replaced without the images that were refused."},
        404: {"description": "None of the images is stored."},
    },
    openapi_extra=images_body(
        ids="JSON list of stored images that become examples, beside files or instead.",
        items="JSON text: one object for each file with id, group, metadata.",
        mode="extend (default) adds to the class; replace leaves it with these images only.",
    ),
)
async def put_class(
    c: CollectionName,
    label: Label,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
) -> JSONResponse:
    """Make a class from a few images, or add to it; the next classification knows."""
    body = await read_body(request, core.settings)
    parameters = parse(RegisterParameters, body.parameters)
    keyed = key.over(body.digest)
    answer, is_repeat = await slots.run(registering.put_class, core, c, label, body.uploads, parameters, keyed)
    return JSONResponse(answer.body, status_code=answer.status, headers=replayed(is_repeat))


@router.get("/v1/collections/{c}/classes")
async def list_classes(
    c: CollectionName, core: CoreDependency, slots: SlotsDependency, after: After = None
) -> dict[str, Any]:
    """Every class, in order of label, with its first 100 examples."""
    return {"classes": await slots.run(registering.list_classes, core, c, after)}


@router.get("/v1/collections/{c}/classes/{label}")
async def get_class(
    c: CollectionName, label: Label, core: CoreDependency, slots: SlotsDependency, after: After = None
) -> dict[str, Any]:
    """One class with all its examples."""
    return await slots.run(registering.get_class, core, c, label, after)


@router.delete("/v1/collections/{c}/classes/{label}", status_code=204)
async def delete_class(
    c: CollectionName,
    label: Label,
    core: CoreDependency,
    slots: SlotsDependency,
    response: Response,
    images: Annotated[
        Literal["keep", "delete"], Query(description="Whether its images stay in the collection or go with it.")
    ] = "keep",
    role: Annotated[
        Literal["unlabelled", "normal", "anomalous"] | None,
        Query(description="Role of images that stay; unset: what each was before, `unlabelled` if it was nothing."),
    ] = None,
) -> None:
    """Forget a class. Its images stay, without a label, unless told otherwise."""
    sequence = await slots.run(registering.delete_class, core, c, label, images, role)
    response.headers[SEQUENCE_HEADER] = str(sequence)


@router.post(
    "/v1/collections/{c}/classify",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE}}},
        207: {"description": "Some images could not be read; each has a `problem` in its place."},
        409: {"description": "There are no classes yet."},
    },
    openapi_extra=images_body(
        false_alarm_rate="Share of images of known classes that may be called unknown.",
        top="How many classes are listed, likeliest first; all unless given.",
        neighbours="How many nearest examples are shown.",
        after="A `sequence` that a write answered: wait for a moment until this process knows it.",
        ids="JSON list of stored images to classify instead of files; an example is judged without itself.",
    ),
)
async def classify(
    c: CollectionName, request: Request, core: CoreDependency, slots: SlotsDependency, refits: RefitsDependency
) -> JSONResponse:
    """Which of the classes is each image, or none of them?"""
    body = await read_body(request, core.settings)
    parameters = parse(ClassifyParameters, body.parameters)
    if await slots.run(service.is_behind, core, c, parameters.after):
        # One fit at a time and in a line of its own: whoever waits for it takes no slot from other requests.
        await refits.run(service.catch_up, core, c, parameters.after)
    answer, status = await slots.run(service.classify, core, c, body.uploads, parameters)
    return JSONResponse(answer, status_code=status)
