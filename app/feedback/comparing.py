"""Comparisons and ratings: kept for the scorers that learn from them; no role changes, and no score before a fit."""

from collections.abc import Sequence
from typing import Any

from app.bodies import Upload
from app.collection_state import CollectionState
from app.collections.repository import require
from app.core import Core
from app.db.tables import FeedbackRow
from app.errors import Invalid, NotFound
from app.feedback import repository
from app.feedback.schemas import FeedbackParameters
from app.feedback.showing import show
from app.idempotency import Answer, Request
from app.images.repository import by_ids
from app.jobs.service import new_id
from models.catalog import installed
from models.contract import Need

_NEED = {"pair": Need.PAIRS, "rating": Need.RATINGS}


def keep_answer(
    core: Core, name: str, uploads: Sequence[Upload], parameters: FeedbackParameters, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """The comparison or rating as kept, and whether it was given before under the same Idempotency-Key.

    It holds for the bytes that the images have now: of an image that is sent again with other bytes it says nothing.
    Raises NotFound when an image is not there, Invalid when a file comes with it.
    """
    if uploads:
        raise Invalid(f"Feedback of kind {parameters.kind} is about stored images: give their ids, no file.", "no_file")
    wanted = [one for one in (parameters.left or parameters.id, parameters.right) if one is not None]
    with core.idempotency.once(request) as answered:
        if answered is not None:
            return answered.body, True
        with core.database.write() as session:
            now = core.clock()
            collection = require(session, name, locked=True)
            images = by_ids(session, collection.id, wanted)
            missing = [one for one in wanted if one not in images]
            if missing:
                raise NotFound(f"Collection `{name}` has no image `{missing[0]}`.", "image_unknown", missing=missing)
            first, other = images[wanted[0]], images[wanted[1]] if len(wanted) > 1 else None
            row = FeedbackRow(
                id=new_id(now),
                collection_id=collection.id,
                kind=parameters.kind,
                image_id=first.image_id,
                sha256=first.sha256,
                role_before=first.role,
                role_after=first.role,
                other_image_id=None if other is None else other.image_id,
                other_sha256=None if other is None else other.sha256,
                answer=parameters.answer,
                value=parameters.value,
                rater=parameters.rater,
                note=parameters.note,
                created_at=now,
            )
            session.add(row)
            session.flush()
            answer = {**show(row), "scorers": _meaning(parameters.kind)}
            core.idempotency.remember(session, request, Answer(201, answer))
    return answer, False


def undo_answer(core: Core, state: CollectionState, feedback_id: str) -> dict[str, Any]:
    """The comparison or rating after it was taken back; the next fit does not see it. Raises NotFound."""
    with core.database.write() as session:
        require(session, state.name, locked=True)
        row = repository.find(session, state.id, feedback_id)
        if row is None:
            raise NotFound(f"Collection `{state.name}` has no feedback `{feedback_id}`.", "feedback_unknown")
        if row.undone_at is None:
            row.undone_at = core.clock()
        return show(row)


def _meaning(kind: str) -> dict[str, str]:
    """What each scorer makes of it."""
    catalogue = installed()
    return {
        name: "It is learnt from when the scorer is fitted next; nothing changes until then."
        for name in catalogue
        if _NEED[kind]
        in (*catalogue[name].needs.required, *catalogue[name].needs.either, *catalogue[name].needs.optional)
    }
