"""Parameters of GET /drift."""

from typing import Annotated, Literal

from fastapi import Query

from app.names import Text

Scorer = Annotated[Text, Query(max_length=128, description="Id of a scorer.")]
Hours = Annotated[
    int, Query(ge=1, le=24 * 366, description="How far back to look: full hours, the present one with them.")
]
Level = Annotated[
    float,
    Query(gt=0, lt=0.5, description="How often images that are like the normal ones may be taken for others."),
]
Rate = Annotated[
    float | None,
    Query(gt=0, lt=1, description="At which false-alarm rate alarms are counted; that of the collection by default."),
]
Against = Annotated[
    Literal["calibration", "before"],
    Query(
        description="With what to compare: the calibration images, or as many hours right before, which leaves aside "
        "a share of real defects that does not change."
    ),
]
