"""POST /v1/collections/{c}/explain."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from app.bodies import parse, read_body
from app.classes import service as classes
from app.dependencies import CoreDependency, MappingDependency, RefitsDependency, SlotsDependency
from app.explaining import service
from app.explaining.schemas import IMAGES_MAX, ExplainParameters
from app.names import CollectionName
from app.openapi import images_body
from models.methods.few_shot_lr import METHOD as CLASSIFIER

router = APIRouter(tags=["explanations"])

SHOWN = {
    "id": "part-17",
    "distance": 0.119,
    "metadata": {"filename": "part-17.jpg"},
    "thumbnail": "/v1/collections/parts/images/part-17/thumbnail",
}
EXAMPLE = {
    "scorer": "dn2",
    "explained_by": "occlusion",
    "fingerprint": "5b1f…",
    "weights": "embedded",
    "k": 2,
    "metric": "cosine",
    "sequence": 12,
    "calibration": {"n": 200, "requested": 0.01, "supported": True, "false_alarm_rate": 0.00995, "threshold": 0.081},
    "results": [
        {
            "score": 0.124,
            "p_value": 0.00498,
            "anomalous": True,
            "examples": {"normal": [SHOWN], "anomalous": [], "classes": [{"label": "scratch", "examples": [SHOWN]}]},
            "map": {
                "target": "score",
                "label": None,
                "value": 0.124,
                "baseline": {"kind": "normal", "id": "part-17"},
                "baseline_value": 0.031,
                "evaluations": 38,
                "shape": [7, 7],
                "values": "<base64>",
                "low": 0.0,
                "border": 0.02,
                "high": 0.04,
                "region": {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0},
                "overlay": "data:image/png;base64,…",
            },
        }
    ],
}


@router.post(
    "/v1/collections/{c}/explain",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE}}},
        207: {"description": "Some images could not be read; each has a `problem` in its place."},
        409: {"description": "There is nothing to score with, or LIME and SHAP are not installed."},
    },
    openapi_extra=images_body(
        scorer="Whose answer is explained: dn2 (default), a fitted scorer, or few_shot_lr for /classify.",
        method="examples (default), or a map beside them: occlusion, gradient, lime, shap; "
        f"at most {IMAGES_MAX} images then.",
        target="score, or probability of a class where the scorer gives one; the default is what the scorer is for.",
        label="The class whose probability is explained; the likeliest unless given.",
        baseline="What covered parts show: normal (the nearest normal image), blur or mean. Default: normal for "
        "scores, blur for probabilities.",
        k="DN2: mean distance to the k nearest normal images.",
        neighbours="How many images of each kind are shown.",
        classes="How many classes are shown, nearest first.",
        false_alarm_rate="Share of normal images that may alarm.",
        grid="Cells a side of a map, 2 to 32; default 7.",
        window="occlusion: side of the square that is covered, in cells; default 2.",
        evaluations="lime, shap: images scored for a map, at most; default 500.",
        steps="gradient: images between the baseline and the image; default 16.",
        seed="lime, shap: the same seed draws the same map; default 0.",
        after="A `sequence` that a write answered: wait for a moment until this process knows it.",
        ids="JSON list of stored images to explain instead of files.",
    ),
)
async def explain(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    mapping: MappingDependency,
    refits: RefitsDependency,
) -> JSONResponse:
    """Explain what /anomaly or /classify says of images: the nearest examples, and a map of what it rests on."""
    body = await read_body(request, core.settings)
    parameters = parse(ExplainParameters, body.parameters)
    if parameters.scorer == CLASSIFIER.name and await slots.run(classes.is_behind, core, c, parameters.after):
        await refits.run(classes.catch_up, core, c, parameters.after)
    # Maps stand in a line of their own: however many are asked for, other requests find a slot.
    line = slots if parameters.method == "examples" else mapping
    answer, status = await line.run(service.explain, core, c, body.uploads, parameters)
    return JSONResponse(answer, status_code=status)
