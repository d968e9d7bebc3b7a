"""Parameters of the group paths."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import json_parameter
from app.images.schemas import Role
from app.names import After, ImageId, Text

MEMBERS_MAX = 10_000
Members = Annotated[list[ImageId], BeforeValidator(json_parameter), Field(max_length=MEMBERS_MAX)]
Metadata = Annotated[dict[str, Any], BeforeValidator(json_parameter)]


class RegisterParameters(BaseModel):
    """Parameters of PUT /groups/{g}: stored images by `ids`, or files that become images of the collection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Members | None = None
    items: Annotated[list[dict[str, Any]] | None, BeforeValidator(json_parameter)] = None
    role: Role = "normal"
    metadata: Metadata = {}


class GroupScoreParameters(BaseModel):
    """How to score a set; what is not given is as the collection is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scorer: Annotated[Text, Field(max_length=128)] = "dn2"
    pooling: Literal["mean", "max", "concat", "excess"] = "mean"
    k: Annotated[int | None, Field(ge=1, le=64)] = None
    neighbours: Annotated[int | None, Field(ge=0, le=100)] = None
    false_alarm_rate: Annotated[float | None, Field(gt=0, lt=1)] = None
    ids: Members | None = None
    after: After = None
