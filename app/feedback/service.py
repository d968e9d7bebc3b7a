"""What a person says about a verdict: it changes the image's role at once, and can be taken back."""

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.bodies import Upload
from app.collections.repository import next_sequence
from app.compressed import scorer_of
from app.core import Core
from app.db.tables import FeedbackRow, ImageRow
from app.errors import Conflict, Invalid, NotFound, ServiceError
from app.feedback import repository
from app.feedback.comparing import keep_answer, undo_answer
from app.feedback.schemas import FeedbackParameters
from app.feedback.showing import show
from app.idempotency import Answer, Request
from app.images.repository import by_ids, change_roles, remove
from app.images.schemas import AddParameters
from app.images.service import add_images
from app.jobs.service import new_id
from app.shelf import CollectionState

ROLE_AFTER = {"false_alarm": "normal", "missed": "anomalous", "confirmed": "anomalous"}
# What each scorer makes of the role, said in every answer.
MEANING = {
    "normal": {
        "dn2": "The image is in the bank from now on: images like it score lower, and it may serve for calibration."
    },
    "anomalous": {
        "dn2": "The image is a taught defect from now on: an image closer to it than to the normal images has its "
        "score multiplied by the ratio of the two distances (at most 1000), calibration images likewise. It is not in "
        "the bank."
    },
}


def give_feedback(
    core: Core, name: str, uploads: Sequence[Upload], parameters: FeedbackParameters, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """What the feedback changed, and whether it was given before under the same Idempotency-Key.

    A file is stored first, as an image of no role; the feedback and the role are then one transaction. Raises
    NotFound when there is no such image, and what storing a file raises. A comparison or a rating changes no role.
    """
    if parameters.kind in repository.ROLELESS:
        return keep_answer(core, name, uploads, parameters, request)
    if len(uploads) > 1 or (not uploads and parameters.id is None):
        raise Invalid("Feedback is about one image: give the `id` of a stored one, or send one file.", "one_image")
    with core.idempotency.once(request) as answered:
        if answered is not None:
            return _with_calibration(core, name, answered.body), True
        state = core.shelf.get(name)
        image_id, is_new = parameters.id or "", False
        if uploads:
            image_id, is_new = _stored(core, name, uploads[0], parameters.id)
        with core.database.write() as session:
            now = core.clock()
            sequence = next_sequence(session, state.id, now)
            image = by_ids(session, state.id, [image_id]).get(image_id)
            if image is None:
                raise NotFound(f"Collection `{name}` has no image `{image_id}`.", "image_unknown")
            after = ROLE_AFTER[parameters.kind]
            row = FeedbackRow(
                id=new_id(now),
                collection_id=state.id,
                kind=parameters.kind,
                image_id=image.image_id,
                sha256=image.sha256,
                role_before=None if is_new else image.role,
                role_after=after,
                note=parameters.note,
                created_at=now,
            )
            if image.role != after:
                change_roles([image], after, sequence, now)
            session.add(row)
            session.flush()
            answer = {**show(row), "sequence": sequence, "scorers": MEANING[after]}
            core.idempotency.remember(session, request, Answer(201, answer))
        core.shelf.follow(state)
    return _with_calibration(core, name, answer), False


def get_feedback(core: Core, name: str, feedback_id: str) -> dict[str, Any]:
    """One feedback, undone or not. Raises NotFound."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        return show(_require(session, state, feedback_id))


def list_feedback(core: Core, name: str, before: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Feedback on a collection, newest first, and the id to go on after when there is more."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        rows = repository.page(session, state.id, before, limit + 1)
        return [show(row) for row in rows[:limit]], (rows[limit - 1].id if len(rows) > limit else None)


def undo_feedback(core: Core, name: str, feedback_id: str) -> dict[str, Any]:
    """The feedback after it was taken back: the role is as before, an image that it brought is gone.

    Undoing twice changes nothing more. Raises NotFound; Conflict, saying which, when a later change stands in the way.
    """
    state = core.shelf.get(name)
    with core.database.read() as session:
        is_roleless = _require(session, state, feedback_id).kind in repository.ROLELESS
    if is_roleless:
        return undo_answer(core, state, feedback_id)
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        row = _require(session, state, feedback_id)
        if row.undone_at is None:
            image = _unchanged(session, state, row)
            if row.role_before is None:
                remove(session, state.id, [image.id], sequence)
            elif row.role_before != row.role_after:
                change_roles([image], row.role_before, sequence, now)
            row.undone_at = now
        answer = {**show(row), "sequence": sequence}
    core.shelf.follow(state)
    return _with_calibration(core, name, answer)


def _stored(core: Core, name: str, upload: Upload, image_id: str | None) -> tuple[str, bool]:
    """The id under which the image is stored, and whether it is new. Raises what makes it impossible.

    Until the feedback is written the image has no say in any score: should the service stop in between, an
    unlabelled image is all that is left.
    """
    wanted = image_id or hashlib.sha256(upload.data).hexdigest()
    parameters = AddParameters(mode="insert_only")
    named = Upload(upload.data, upload.filename, {**upload.item, "id": wanted, "role": "unlabelled"})
    answer, _ = add_images(core, name, [named], parameters, None)
    item = answer.body["items"][0]
    if item["status"] == "refused":
        raise _refusal(item["problem"])
    return wanted, item["status"] == "created"


def _refusal(problem: dict[str, Any]) -> ServiceError:
    error = ServiceError(problem["detail"], problem["code"])
    error.status = problem["status"]
    return error


def _unchanged(session: Session, state: CollectionState, row: FeedbackRow) -> ImageRow:
    """The image as the feedback left it. Raises Conflict with the change that stands in the way."""
    image = by_ids(session, state.id, [row.image_id]).get(row.image_id)
    later = repository.later_on_image(session, row)
    obstacle = None
    if image is None:
        obstacle = "was deleted since"
    elif later is not None:
        obstacle = f"has later feedback `{later.id}` ({later.kind}); undo that first"
    elif image.sha256 != row.sha256:
        obstacle = "was sent again with other bytes since"
    elif image.role != row.role_after:
        obstacle = f"was given the role {image.role} since"
    if image is None or obstacle is not None:
        more = {} if later is None else {"feedback": later.id}
        detail = f"Feedback `{row.id}` cannot be undone: image `{row.image_id}` {obstacle}."
        raise Conflict(detail, "changed_since", **more)
    return image


def _with_calibration(core: Core, name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with the calibration as it stands now."""
    state = core.shelf.get(name)
    with state.lock.read(), state.calibrating:
        n = int(scorer_of(state).calibration(state.settings.k).scores.size)
    return {**answer, "calibration": {"n": n}}


def _require(session: Session, state: CollectionState, feedback_id: str) -> FeedbackRow:
    row = repository.find(session, state.id, feedback_id)
    if row is None:
        raise NotFound(f"Collection `{state.name}` has no feedback `{feedback_id}`.", "feedback_unknown")
    return row
