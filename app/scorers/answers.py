"""Comparisons and ratings that people gave, as methods read them.

An answer was given about bytes that somebody saw: it counts while the image still has them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from app.db.tables import FeedbackRow
from app.scorers.annotations import Annotations
from models.contract import Pair, Rating


def pairs_of(images: Sequence[Any], given: Sequence[FeedbackRow]) -> list[Pair]:
    """The comparisons whose images are both as they were seen, oldest first."""
    pk_of = {(one.image_id, one.sha256): int(one.id) for one in images}
    found = []
    for row in given:
        left = pk_of.get((row.image_id, row.sha256))
        right = pk_of.get((row.other_image_id, row.other_sha256))
        if row.kind == "pair" and left is not None and right is not None:
            answer = cast(Literal["left", "right", "same", "cannot_say"], row.answer)
            found.append(Pair(left, right, answer, row.rater))
    return found


def with_ratings(
    annotations: list[Annotations], images: Sequence[Any], given: Sequence[FeedbackRow]
) -> list[Annotations]:
    """The annotations with the ratings given as feedback; of one rater the newest counts, before what metadata say."""
    said: dict[tuple[str, str], dict[str, float]] = {}
    for row in given:
        if row.kind == "rating" and row.value is not None and row.rater is not None:
            said.setdefault((row.image_id, row.sha256), {})[row.rater] = row.value
    if not said:
        return annotations
    found = []
    for one, notes in zip(images, annotations, strict=True):
        ratings = {rating.rater: rating.value for rating in notes.ratings} | said.get((one.image_id, one.sha256), {})
        found.append(replace(notes, ratings=tuple(Rating(rater, value) for rater, value in ratings.items())))
    return found
