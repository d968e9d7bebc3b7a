"""Parameters of POST /query."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import json_parameter
from app.names import After, ImageId

Examples = Annotated[list[ImageId], BeforeValidator(json_parameter), Field(max_length=1000)]


class QueryParameters(BaseModel):
    """What to look for, and how far. Exactly one of files, `id`, `ids`, `vector`, `vectors`, `positive` says what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ImageId | None = None
    ids: Examples | None = None
    vector: Annotated[list[float] | None, BeforeValidator(json_parameter), Field(max_length=65536)] = None
    vectors: Annotated[list[list[float]] | None, BeforeValidator(json_parameter), Field(max_length=1000)] = None
    positive: Examples | None = None
    negative: Examples | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    filter: Annotated[Any, BeforeValidator(json_parameter)] = None
    max_distance: Annotated[float | None, Field(ge=0)] = None
    exact: bool = False
    after: After = None
