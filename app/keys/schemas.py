"""What a new key is given, and parameters of the key paths."""

from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from app.access.caller import EVERYTHING, Scope
from app.names import Name, Text, valid_name

KEEP_MAX_S = 30 * 86_400


def _valid_pattern(pattern: str) -> str:
    if pattern.endswith(EVERYTHING):
        valid_name(f"{pattern[:-1]}_")  # some name that begins so
        return pattern
    return valid_name(pattern)


Pattern = Annotated[str, AfterValidator(_valid_pattern)]


class KeyParameters(BaseModel):
    """What a new key may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[Name, Field(description="What people call it; no two keys ever have the same name.")]
    scopes: Annotated[
        frozenset[Scope],
        Field(min_length=1, description="read: ask and look; write: change; admin: everything, keys too."),
    ]
    collections: Annotated[
        tuple[Pattern, ...],
        Field(
            min_length=1,
            max_length=1000,
            description="Names of collections, or beginnings of names followed by `*`, that it is for.",
        ),
    ] = (EVERYTHING,)
    expires_at: Annotated[AwareDatetime | None, Field(description="When it ends, with a time zone.")] = None
    requests_per_s: Annotated[
        float | None, Field(gt=0, le=1e6, description="Requests a second, in each server process.")
    ] = None
    requests_per_day: Annotated[
        int | None, Field(ge=1, le=10**12, description="Requests a day in UTC, in all processes together.")
    ] = None

    @model_validator(mode="after")
    def _admin_is_for_everything(self) -> "KeyParameters":
        if "admin" in self.scopes and EVERYTHING not in self.collections:
            raise ValueError("`collections` of a key with scope admin must be `*`: it can make keys for everything")
        return self


class RotateParameters(BaseModel):
    """How a key gets another token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_s: Annotated[
        float, Field(ge=0, le=KEEP_MAX_S, description="Seconds for which the token before is still good.")
    ] = 0.0


KeyId = Annotated[Text, Path(alias="id", max_length=128, description="Id or name of the key.")]
