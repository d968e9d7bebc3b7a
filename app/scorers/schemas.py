"""Parameters of the scorer paths."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import plain_json
from app.names import valid_name

PARAMETERS_MAX = 100


class FitParameters(BaseModel):
    """Body of PUT /scorers/{id}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Annotated[
        str | None, Field(max_length=64, description="Id of the method, as GET /v1/scorers lists it; unset: the id.")
    ] = None
    params: Annotated[
        dict[str, Any],
        BeforeValidator(plain_json),
        Field(max_length=PARAMETERS_MAX, description="Parameters of the method; what is not given is at its default."),
    ] = {}
    seed: Annotated[int, Field(ge=0, lt=2**31, description="The same seed learns the same scorer.")] = 0


ScorerName = Annotated[
    str,
    AfterValidator(valid_name),
    Path(alias="id", max_length=128, description="Name of the scorer; usually that of its method."),
]
