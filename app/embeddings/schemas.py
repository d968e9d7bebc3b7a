"""Parameters of the embedding paths."""

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import plain_json

PARAMETERS_MAX = 100


class LearnParameters(BaseModel):
    """Body of POST /embeddings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Annotated[
        str, Field(max_length=64, description="Id of a method that gives an embedding, as GET /v1/scorers lists it.")
    ]
    params: Annotated[
        dict[str, Any],
        BeforeValidator(plain_json),
        Field(max_length=PARAMETERS_MAX, description="Parameters of the method; what is not given is at its default."),
    ] = {}
    seed: Annotated[int, Field(ge=0, lt=2**31, description="The same seed learns the same embedding.")] = 0
    activate: Annotated[bool, Field(description="Go over to the new version when it is complete, if it is better.")] = (
        False
    )


Version = Annotated[int, Path(alias="v", ge=1, lt=2**62, description="Number of the version.")]
Force = Annotated[
    bool, Query(description="Go over to it also when it is not better, or when nothing tells whether it is.")
]
