"""Parameters of the feedback paths."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from app.names import ImageId, Text

Kind = Literal["false_alarm", "missed", "confirmed"]
FeedbackId = Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$", description="Id of the feedback.")]


class FeedbackParameters(BaseModel):
    """What was wrong or right about the verdict on one image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[
        Kind,
        Field(description="false_alarm: it is normal; missed: it is a defect; confirmed: the alarm was right."),
    ]
    id: Annotated[
        ImageId | None,
        Field(description="A stored image; with a file: the id to store it under, unset: the sha256 of its bytes."),
    ] = None
    note: Annotated[Text | None, Field(max_length=4096, description="Free text for people.")] = None
