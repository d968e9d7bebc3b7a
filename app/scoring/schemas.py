"""Parameters of POST /anomaly."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import json_parameter
from app.names import After, ImageId, Text

Rate = Annotated[float, Field(gt=0, lt=1)]


class ScoreParameters(BaseModel):
    """How to score; what is not given is as the collection is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scorer: Annotated[Text, Field(max_length=128)] = "dn2"
    k: Annotated[int | None, Field(ge=1, le=64)] = None
    neighbours: Annotated[int | None, Field(ge=0, le=100)] = None
    false_alarm_rate: Rate | None = None
    heatmap: bool = False
    control: Literal["none", "fdr"] = "none"
    after: After = None
    ids: Annotated[list[ImageId] | None, BeforeValidator(json_parameter), Field(max_length=1000)] = None
