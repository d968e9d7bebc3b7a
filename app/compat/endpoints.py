"""POST /compat/lookoutvision/2020-11-20/projects/{p}/models/{v}/detect."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from app.compat import lookout
from app.dependencies import CoreDependency, SlotsDependency
from app.errors import Invalid
from app.names import Name, Text

router = APIRouter(tags=["compatible"])

Project = Annotated[Name, Path(alias="p", description="Name of the collection.")]
Version = Annotated[
    Text,
    Path(
        alias="v",
        min_length=1,
        max_length=128,
        description="Name of a scorer of the collection; where there is none, a number or `latest` stands for `dn2`.",
    ),
]
EXAMPLE = {
    "DetectAnomalyResult": {
        "Source": {"Type": "direct"},
        "IsAnomalous": True,
        "Confidence": 0.93,
        "Anomalies": [
            {"Name": "background", "PixelAnomaly": {"TotalPercentageArea": 0.986, "Color": "#FFFFFF"}},
            {"Name": "anomaly", "PixelAnomaly": {"TotalPercentageArea": 0.014, "Color": "#DC0000"}},
        ],
        "AnomalyMask": "<base64 of a PNG>",
    }
}
IMAGE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/compat/lookoutvision/2020-11-20/projects/{p}/models/{v}/detect",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE}}},
        400: {"description": "`ValidationException` in the header `x-amzn-ErrorType`: the image cannot be read."},
        404: {"description": "`ResourceNotFoundException`: no such collection or scorer."},
        409: {"description": "`ConflictException`: the scorer is not fitted, or there are too few normal images."},
        429: {"description": "`ThrottlingException`: too many requests at once."},
    },
    openapi_extra={"requestBody": {"required": True, "content": {"image/jpeg": IMAGE, "image/png": IMAGE}}},
)
async def detect_anomalies(
    p: Project, v: Version, request: Request, core: CoreDependency, slots: SlotsDependency
) -> JSONResponse:
    """The verdict on one image, in the shape that Amazon Lookout for Vision answered `DetectAnomalies` in.

    The key is given as access key id; the signature is not checked.
    """
    image = await request.body()
    if not image:
        raise Invalid("The body is empty; send the bytes of one image.", "body_empty")
    return JSONResponse({"DetectAnomalyResult": await slots.run(lookout.detect, core, p, v, image)})
