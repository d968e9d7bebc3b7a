"""Making, extending, replacing, showing and deleting classes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.bodies import Upload
from app.classes import repository
from app.classes.classifier import example_pks
from app.classes.schemas import RegisterParameters
from app.clock import shown
from app.collection_state import CollectionState
from app.collections.repository import next_sequence
from app.core import Core
from app.db.tables import ImageRow
from app.errors import Invalid, NotFound, item_problem
from app.idempotency import Answer, Request
from app.images.repository import EXAMPLE, by_ids, remove
from app.images.schemas import AddParameters
from app.images.service import add_images

LISTED_MAX = 100  # examples of a class that the list of classes names


def put_class(
    core: Core,
    name: str,
    label: str,
    uploads: Sequence[Upload],
    parameters: RegisterParameters,
    request: Request | None,
) -> tuple[Answer, bool]:
    """The answer to a PUT of a class, and whether it was given before under the same Idempotency-Key.

    Files are stored as images of the collection, and these and the stored images named become examples of the class,
    in one transaction: the next answer knows all of them or none. Raises Invalid, NotFound when none can be taken.
    """
    wanted = list(dict.fromkeys(parameters.ids or ()))
    if not uploads and not wanted:
        raise Invalid("Send images of the class, or `ids` of stored ones, or both.", "no_images")
    _check_items(uploads, parameters)
    state = core.shelf.get(name)
    registration = _Registration(state, label, wanted, parameters.mode, _facts_before(state, uploads, parameters))
    if uploads:
        given = AddParameters.model_validate(
            {"role": EXAMPLE, "label": label, **({} if parameters.items is None else {"items": parameters.items})}
        )
        return add_images(core, name, uploads, given, request, registration.within)
    with core.idempotency.once(request) as answered:
        if answered is not None:
            return answered, True
        with core.database.write() as session:
            now = core.clock()
            sequence = next_sequence(session, state.id, now)
            answer = registration.within(session, {"items": [], "sequence": sequence}, now)
            core.idempotency.remember(session, request, answer)
        core.shelf.follow(state)
        return answer, False


@dataclass(frozen=True, slots=True)
class _Registration:
    """What a PUT does inside the transaction, once its files are stored."""

    state: CollectionState
    label: str
    wanted: list[str]
    mode: Literal["extend", "replace"]
    before: dict[str, tuple[str, str | None]]  # role and label of files that were stored already

    def within(self, session: Session, body: dict[str, Any], now: datetime) -> Answer:
        """Take the images into the class and make the answer."""
        sequence = body["sequence"]
        items = [self._file(one) for one in body["items"]]
        good = {one["id"] for one in items if one["status"] != "refused"}
        rows = by_ids(session, self.state.id, self.wanted)
        items += [self._stored(one, rows.get(one), sequence, now) for one in self.wanted]
        good |= set(rows)
        refused = [one for one in items if one["status"] == "refused"]
        if not good:
            if not body["items"]:
                raise NotFound(
                    f"Collection `{self.state.name}` has no image `{self.wanted[0]}`; nothing is changed.",
                    "image_unknown",
                    missing=self.wanted,
                )
            raise Invalid("No image could be taken, so nothing is changed.", "no_images", refused=refused)
        examples = repository.examples(session, self.state.id, self.label)
        members = {one["id"] for one in items if one.get("before") == _told((EXAMPLE, self.label))}
        is_new = all(row.image_id in good - members for row in examples)
        left = [row for row in examples if row.image_id not in good] if self.mode == "replace" else []
        repository.release(left, None, sequence, now)
        counts = {
            status: sum(one["status"] == status for one in items)
            for status in ("created", "updated", "duplicate", "refused")
        }
        answer = {
            "label": self.label,
            "count": len(examples) - len(left),
            "items": items,
            **counts,
            "released": [row.image_id for row in left],
            "sequence": sequence,
        }
        return Answer(207 if refused else 201 if is_new else 200, answer)

    def _file(self, item: dict[str, Any]) -> dict[str, Any]:
        before = self.before.get(item["id"])
        return item if before is None or item["status"] == "refused" else {**item, "before": _told(before)}

    def _stored(self, image_id: str, row: ImageRow | None, sequence: int, now: datetime) -> dict[str, Any]:
        if row is None:
            fault = NotFound(f"Collection `{self.state.name}` has no image `{image_id}`.", "image_unknown")
            return {"id": image_id, "status": "refused", "sha256": None, "problem": item_problem(fault)}
        before = (row.role, row.label)
        status = "duplicate"
        if before != (EXAMPLE, self.label):
            repository.enlist([row], self.label, sequence, now)
            status = "updated"
        return {"id": image_id, "status": status, "sha256": row.sha256, "before": _told(before)}


def list_classes(core: Core, name: str, after: int | None = None) -> list[dict[str, Any]]:
    """Every class in order of label, with its first examples."""
    state = core.shelf.get(name, after)
    return [_shown(label, members, LISTED_MAX) for label, members in sorted(_classes(core, state).items())]


def get_class(core: Core, name: str, label: str, after: int | None = None) -> dict[str, Any]:
    """One class with all its examples. Raises NotFound."""
    state = core.shelf.get(name, after)
    members = _classes(core, state, label).get(label)
    if members is None:
        raise _unknown(name, label)
    return _shown(label, members, None)


def delete_class(core: Core, name: str, label: str, images: Literal["keep", "delete"], role: str | None) -> int:
    """Forget a class: the sequence of the change. Its images stay, without a label, or are deleted.

    Those that stay get this role; without one each the role that it had before. Raises NotFound.
    """
    state = core.shelf.get(name)
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        rows = repository.examples(session, state.id, label)
        if not rows:
            raise _unknown(name, label)
        if images == "delete":
            remove(session, state.id, [row.id for row in rows], sequence)
        else:
            repository.release(rows, role, sequence, now)
    core.shelf.follow(state)
    return sequence


Member = tuple[str, datetime]
"""Id of an example and when it was stored."""


def _classes(core: Core, state: CollectionState, only: str | None = None) -> dict[str, list[Member]]:
    with state.lock.read():
        pks = example_pks(state)
        labels = state.entries.labels_of(pks)
        chosen = [place for place, label in enumerate(labels) if only in (None, label)]
        pks = pks[chosen]
        ids = state.entries.image_ids_of(pks)
    with core.database.read() as session:
        moments = repository.arrivals(session, pks.tolist())
    classes: dict[str, list[Member]] = {}
    for place, pk, image_id in zip(chosen, pks.tolist(), ids, strict=True):
        label = labels[place]
        if label is not None and pk in moments:  # else it was deleted just now
            classes.setdefault(label, []).append((image_id, moments[pk]))
    return classes


def _shown(label: str, members: Sequence[Member], most: int | None) -> dict[str, Any]:
    return {
        "label": label,
        "count": len(members),
        "examples": [image_id for image_id, _ in members[:most]],
        "created_at": shown(min(moment for _, moment in members)),
    }


def _facts_before(
    state: CollectionState, uploads: Sequence[Upload], parameters: RegisterParameters
) -> dict[str, tuple[str, str | None]]:
    """Role and label of files that are stored already, by id: what a caller needs to put things back."""
    items = parameters.items or []
    found: dict[str, tuple[str, str | None]] = {}
    with state.lock.read():
        for place, upload in enumerate(uploads):
            item = {**(items[place] if place < len(items) else {}), **upload.item}
            image_id = str(item.get("id") or hashlib.sha256(upload.data).hexdigest())
            pk = state.entries.find(image_id)
            if pk is not None:
                entry = state.entries[pk]
                found[image_id] = (entry.role, entry.label)
    return found


def _check_items(uploads: Sequence[Upload], parameters: RegisterParameters) -> None:
    """The path says role and label; an item that says something else contradicts it."""
    for place, item in enumerate([*(parameters.items or ()), *(upload.item for upload in uploads)]):
        for field in ("role", "label"):
            if field in item:
                raise Invalid(
                    f"`{field}` of item {place % max(1, len(uploads))} is said by the path already; leave it out.",
                    "conflicting_parameters",
                )


def _told(before: tuple[str, str | None]) -> dict[str, str | None]:
    return {"role": before[0], "label": before[1]}


def _unknown(name: str, label: str) -> NotFound:
    return NotFound(
        f"Collection `{name}` has no class `{label}`; GET /v1/collections/{name}/classes lists them.", "class_unknown"
    )
