"""What images carry beside their role that only some methods read: it stands in their metadata.

"boxes":     [{"kind": "scratch", "left": 0.1, "top": 0.2, "right": 0.3, "bottom": 0.25}, ...]; [] says: looked at,
             clean. Shares of the upright image's width and height.
"relations": [{"kind": "inside", "head": 0, "tail": 1}, ...], by the boxes' places
"ratings":   [{"rater": "anna", "value": 3.5}, ...]
"stream":    "camera-7", with "position": a number that orders the images of a stream
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import Conflict, faults_of
from models.contract import Box, Rating, Relation
from models.preprocessing import Fit, margins

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=128)]
NAMES = frozenset(("boxes", "relations", "ratings", "stream", "position"))


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Box(_Fact):
    kind: Text
    left: Share
    top: Share
    right: Share
    bottom: Share

    @model_validator(mode="after")
    def _has_area(self) -> "_Box":
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("left must lie left of right, and top above bottom")
        return self


class _Relation(_Fact):
    kind: Text
    head: Annotated[int, Field(ge=0)]
    tail: Annotated[int, Field(ge=0)]


class _Rating(_Fact):
    rater: Text
    value: Annotated[float, Field(allow_inf_nan=False)]


class _Annotated(_Fact):
    boxes: list[_Box] | None = None
    relations: list[_Relation] = []
    ratings: list[_Rating] = []
    stream: Text | None = None
    position: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _relations_name_boxes(self) -> "_Annotated":
        count = len(self.boxes or ())
        if any(max(one.head, one.tail) >= count for one in self.relations):
            raise ValueError("a relation names a box that is not there")
        if self.stream is not None and self.position is None:
            raise ValueError("an image of a stream needs its position")
        return self


@dataclass(frozen=True, slots=True)
class Annotations:
    """What one image carries, in the shares of the backbone's input that methods reckon in."""

    boxes: tuple[Box, ...] | None = None
    relations: tuple[Relation, ...] = ()
    ratings: tuple[Rating, ...] = ()
    stream: str | None = None
    position: float | None = None


NONE = Annotations()


def annotations_of(image: Any, fit: Fit) -> Annotations:
    """The annotations in the metadata of one image of the record. Raises Conflict, which names the image."""
    given = {name: value for name, value in image.details.items() if name in NAMES}
    if not given:
        return NONE
    try:
        read = _Annotated.model_validate(given)
    except ValidationError as error:
        fault = faults_of(error.errors())[0]
        where = f"metadata.{fault['where']}".rstrip(".")
        raise Conflict(
            f"`{where}` of image `{image.image_id}` cannot be used by this method: {fault['what']}. PATCH the image.",
            "annotation_invalid",
        ) from error
    return Annotations(
        boxes=None
        if read.boxes is None
        else tuple(_in_input(one, image.width, image.height, fit) for one in read.boxes),
        relations=tuple(Relation(one.kind, one.head, one.tail) for one in read.relations),
        ratings=tuple(Rating(one.rater, one.value) for one in read.ratings),
        stream=read.stream,
        position=read.position,
    )


def _in_input(box: _Box, width: int, height: int, fit: Fit) -> Box:
    across, down = margins(fit, width, height)

    def moved(value: float, margin: float) -> float:
        return min(1.0, max(0.0, (value - margin) / (1.0 - 2.0 * margin)))

    return Box(
        box.kind, moved(box.left, across), moved(box.top, down), moved(box.right, across), moved(box.bottom, down)
    )
