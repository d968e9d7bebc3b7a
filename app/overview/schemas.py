"""Parameters of the overview paths."""

from typing import Annotated

from fastapi import Query

from app.images.schemas import Role
from app.names import Text

Limit = Annotated[
    int,
    Query(
        ge=1,
        le=2000,
        description="Most images. Where there are more, half of them are the newest outside the bank, and the others "
        "are drawn from the bank.",
    ),
]
OfRole = Annotated[Role | None, Query(description="Only images of this role.")]
OfScorer = Annotated[
    Text,
    Query(
        max_length=128,
        description="Id of a scorer, fitted on this collection or `dn2`. The images are the same, and their places.",
    ),
]
Rate = Annotated[
    float | None, Query(gt=0, lt=1, description="Share of normal images that may alarm; unset: as the collection is.")
]
