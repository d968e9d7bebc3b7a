"""Parameters of the search for duplicates."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from app.images.schemas import Role

Level = Literal["exact_bytes", "exact_pixels", "near", "similar"]


class DuplicatesParameters(BaseModel):
    """Body of POST /duplicates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    levels: Annotated[
        tuple[Level, ...],
        Field(min_length=1, max_length=4, description="What to look for; `similar` is only looked for when asked for."),
    ] = ("exact_bytes", "exact_pixels", "near")
    role: Annotated[Role | None, Field(description="Only among images of this role.")] = None
    near_distance: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Largest distance of near duplicates; unset: measured on copies of the images.",
        ),
    ] = None
    near_hash_bits: Annotated[
        int, Field(ge=0, le=32, description="In how many of 64 bits the hashes of near duplicates may differ.")
    ] = 6
    similar_distance: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Largest distance of similar images; unset: twice that of near ones.",
        ),
    ] = None


DuplicatesId = Annotated[str, Path(alias="job", pattern="^[0-9a-f]{32}$", description="Id of the job that searched.")]
