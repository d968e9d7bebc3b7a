"""Answers as methods read them: those about bytes that are still there, and of one rater the last word."""

from types import SimpleNamespace
from typing import Any

from app.db.tables import FeedbackRow
from app.scorers.annotations import NONE, Annotations
from app.scorers.answers import pairs_of, with_ratings
from models.contract import Pair, Rating

IMAGES: list[Any] = [
    SimpleNamespace(id=10 + number, image_id=name, sha256=name * 2) for number, name in enumerate("abc")
]


def pair(left: str, right: str, answer: str, *, other: str | None = None) -> FeedbackRow:
    other = right * 2 if other is None else other
    return FeedbackRow(
        kind="pair", image_id=left, sha256=left * 2, other_image_id=right, other_sha256=other, answer=answer
    )


def rating(image: str, rater: str, value: float, sha256: str | None = None) -> FeedbackRow:
    return FeedbackRow(kind="rating", image_id=image, sha256=sha256 or image * 2, rater=rater, value=value)


def test_a_pair_counts_while_both_images_are_as_they_were_seen() -> None:
    given = [
        pair("a", "b", "left"),
        rating("a", "ann", 1),
        pair("c", "a", "cannot_say"),
        pair("a", "gone", "left"),
        pair("a", "c", "right", other="other bytes"),
    ]
    assert pairs_of(IMAGES, given) == [Pair(10, 11, "left"), Pair(12, 10, "cannot_say")]


def test_the_last_rating_of_a_rater_counts_and_goes_before_metadata() -> None:
    notes = [Annotations(ratings=(Rating("ann", 1.0), Rating("bob", 2.0))), NONE, NONE]
    given = [rating("a", "ann", 3), rating("a", "ann", 4), rating("b", "cid", 5), rating("c", "cid", 6, "other bytes")]
    found = with_ratings(notes, IMAGES, given)
    assert [one.ratings for one in found] == [
        (Rating("ann", 4.0), Rating("bob", 2.0)),
        (Rating("cid", 5.0),),
        (),
    ]
    assert with_ratings(notes, IMAGES, [pair("a", "b", "left")]) is notes
