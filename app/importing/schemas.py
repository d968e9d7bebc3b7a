"""Parameters of imports."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from app.images.schemas import Role
from app.names import Name


class ImportParameters(BaseModel):
    """What a caller may say about an import."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Annotated[
        str | None, Field(max_length=4096, description="Folder on the service's machine, below one that was allowed.")
    ] = None
    mode: Literal["upsert", "insert_only"] = "upsert"
    role: Role = "normal"
    label: Name | None = None
    group: Name | None = None
    label_from_folder: Annotated[bool, Field(description="Label each image by the folder that holds it.")] = False
    group_from_folder: Annotated[bool, Field(description="Group images by the folder that holds them.")] = False


ImportId = Annotated[str, Path(alias="job", pattern="^[0-9a-f]{32}$", description="Id of the job that imports.")]
