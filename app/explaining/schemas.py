"""Parameters of POST /explain."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import json_parameter
from app.names import After, ImageId, Name, Text
from models.methods.explain import ExplainParams

How = Literal["examples", "occlusion", "gradient", "lime", "shap"]
IMAGES_MAX = 16  # of a request for maps: each is scored hundreds of times


class ExplainParameters(BaseModel):
    """What to explain and how; what is not given is as the collection is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scorer: Annotated[Text, Field(max_length=128)] = "dn2"
    method: How = "examples"
    target: Literal["score", "probability"] | None = None
    label: Name | None = None
    baseline: Literal["normal", "blur", "mean"] | None = None
    k: Annotated[int | None, Field(ge=1, le=64)] = None
    neighbours: Annotated[int | None, Field(ge=1, le=100)] = None
    classes: Annotated[int, Field(ge=0, le=100)] = 10
    false_alarm_rate: Annotated[float | None, Field(gt=0, lt=1)] = None
    grid: int | None = None
    window: int | None = None
    evaluations: int | None = None
    steps: int | None = None
    seed: int | None = None
    after: After = None
    ids: Annotated[list[ImageId] | None, BeforeValidator(json_parameter), Field(max_length=1000)] = None

    def of_map(self) -> ExplainParams:
        """The parameters of a map. Raises ParameterInvalid."""
        given: dict[str, Any] = {name: getattr(self, name) for name in ExplainParams.model_fields}
        return ExplainParams.parse("explain", {name: value for name, value in given.items() if value is not None})
