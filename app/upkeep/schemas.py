"""Parameters of the upkeep paths."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, model_validator


class CleanParameters(BaseModel):
    """Body of POST /clean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fraction: Annotated[
        float | None, Field(ge=0, le=0.5, description="Share of the bank that is dropped, strangest first.")
    ] = None
    k: Annotated[
        int | None,
        Field(ge=1, le=512, description="With `fraction`: neighbours averaged; unset: as many as it drops."),
    ] = None
    scorer: Annotated[
        str | None,
        Field(
            max_length=128,
            description="In place of `fraction`: a fitted scorer whose card lists `cleaned_bank`; what it chose is "
            "dropped.",
        ),
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> "CleanParameters":
        if (self.fraction is None) == (self.scorer is None):
            raise ValueError("exactly one of `fraction` and `scorer` must be given")
        if self.scorer is not None and self.k is not None:
            raise ValueError("`k` goes with `fraction`; a scorer has chosen already")
        return self


class CompressParameters(BaseModel):
    """Body of POST /compress."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Annotated[
        Literal["kmeans", "coreset"], Field(description="k-means centres, or images chosen by k-center greedy.")
    ]
    size: Annotated[int, Field(ge=1, le=1_000_000, description="Rows of the small bank.")]
    seed: Annotated[int, Field(ge=0, lt=2**31, description="The same seed chooses the same rows.")] = 0


class CalibrateParameters(BaseModel):
    """Body of POST /calibrate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: Annotated[int | None, Field(ge=1, le=64, description="k of dn2; unset: the collection's own.")] = None


CleaningId = Annotated[str, Path(alias="job", pattern="^[0-9a-f]{32}$", description="Id of the job that cleaned.")]
