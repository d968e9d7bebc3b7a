"""Parameters of the class paths."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import json_parameter
from app.names import After, ImageId

IDS_MAX = 10_000


class RegisterParameters(BaseModel):
    """Parameters of PUT /classes/{label}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["extend", "replace"] = "extend"
    ids: Annotated[list[ImageId] | None, BeforeValidator(json_parameter), Field(max_length=IDS_MAX)] = None
    items: Annotated[list[dict[str, Any]] | None, BeforeValidator(json_parameter)] = None


class ClassifyParameters(BaseModel):
    """How to classify; what is not given is as the collection is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    false_alarm_rate: Annotated[float | None, Field(gt=0, lt=1)] = None
    top: Annotated[int | None, Field(ge=1, le=100_000)] = None
    neighbours: Annotated[int | None, Field(ge=0, le=100)] = None
    after: After = None
    ids: Annotated[list[ImageId] | None, BeforeValidator(json_parameter), Field(max_length=1000)] = None
