"""Parameters of the image paths."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import json_parameter, plain_json
from app.names import ImageId, Name

Role = Literal["normal", "anomalous", "unlabelled", "example"]


class Item(BaseModel):
    """What a caller may say about one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ImageId | None = None
    role: Role = "normal"
    label: Name | None = None
    group: Name | None = None
    metadata: dict[str, Any] | None = None


class AddParameters(BaseModel):
    """Parameters of POST /images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["upsert", "insert_only"] = "upsert"
    role: Role = "normal"
    label: Name | None = None
    group: Name | None = None
    items: Annotated[list[dict[str, Any]] | None, BeforeValidator(json_parameter)] = None


class ChangeParameters(BaseModel):
    """Body of PATCH /images/{id}: what is given changes, null clears, metadata is merged (RFC 7396)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role | None = None
    label: Name | None = None
    group: Name | None = None
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(plain_json)] = None


class Selection(BaseModel):
    """Which images of a collection are meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Annotated[list[ImageId] | None, Field(max_length=100_000)] = None
    filter: Annotated[Any, BeforeValidator(json_parameter)] = None
    role: Role | None = None
    label: Name | None = None
    group: Name | None = None
