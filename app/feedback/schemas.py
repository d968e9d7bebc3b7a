"""Parameters of the feedback paths."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.names import ImageId, Text

Verdict = Literal["false_alarm", "missed", "confirmed"]
Kind = Literal[Verdict, "pair", "rating"]
Answer = Literal["left", "right", "same", "cannot_say"]
QUESTIONS_MAX = 20
FeedbackId = Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$", description="Id of the feedback.")]


_OF_KIND = {
    "pair": ({"left", "right", "answer"}, {"rater"}),
    "rating": ({"id", "value", "rater"}, set()),
}  # what else must, and may, be given beside `kind` and `note`


class FeedbackParameters(BaseModel):
    """What was wrong or right about the verdict on one image, which of two is stranger, or how strange one is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[
        Kind,
        Field(
            description="false_alarm: it is normal; missed: it is a defect; confirmed: the alarm was right; pair: "
            "which of two stored images is more anomalous; rating: how anomalous a stored image is."
        ),
    ]
    id: Annotated[
        ImageId | None,
        Field(description="A stored image; with a file: the id to store it under, unset: the sha256 of its bytes."),
    ] = None
    left: Annotated[ImageId | None, Field(description="pair: one stored image.")] = None
    right: Annotated[ImageId | None, Field(description="pair: the other stored image.")] = None
    answer: Annotated[Answer | None, Field(description="pair: which of the two is more anomalous.")] = None
    value: Annotated[
        float | None,
        Field(ge=-1e6, le=1e6, description="rating: larger is more anomalous; on any scale, always the same."),
    ] = None
    rater: Annotated[
        Text | None, Field(min_length=1, max_length=128, description="Who says so; a rating needs it.")
    ] = None
    note: Annotated[Text | None, Field(max_length=4096, description="Free text for people.")] = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "FeedbackParameters":
        needed, allowed = _OF_KIND.get(self.kind, (set(), {"id"}))
        given = {name for name in self.model_fields_set - {"kind", "note"} if getattr(self, name) is not None}
        missing, surplus = sorted(needed - given), sorted(given - needed - allowed)
        if missing or surplus:
            told = [f"needs `{name}`" for name in missing] + [f"takes no `{name}`" for name in surplus]
            raise ValueError(f"feedback of kind {self.kind} {' and '.join(told)}")
        if self.kind == "pair" and self.left == self.right:
            raise ValueError("`left` and `right` must be two images")
        return self
