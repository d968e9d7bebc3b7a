"""Adding, listing, changing and deleting images."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.bodies import Upload, refuse_large
from app.clock import shown
from app.collections.repository import next_sequence
from app.core import Core
from app.db.tables import ImageRow
from app.errors import Conflict, Invalid, NotFound, TooLarge, faults_of, item_problem
from app.idempotency import Answer, Request
from app.images import repository
from app.images.schemas import AddParameters, ChangeParameters, Item, Selection
from app.observe import stage
from app.search.filters import Filter, parse_filter
from app.shelf import CollectionState
from models.backbones.embedder import Embedder, PreparedImage
from models.errors import ModelsError

MAX_LIMIT = 1000
LOOK_S = 10.0  # that a page is looked for; then what was found is told, and where to go on
# What filters look at.
FACTS = (ImageRow.id, ImageRow.image_id, ImageRow.role, ImageRow.label, ImageRow.group, ImageRow.details)
Within = Callable[[Session, dict[str, Any], datetime], Answer]


@dataclass(slots=True)
class _Candidate:
    """One file on its way into the collection."""

    item: Item
    image_id: str
    sha256: str
    data: bytes
    filename: str | None
    problem: dict[str, Any] | None = None
    prepared: PreparedImage | None = None
    vector: NDArray[np.float32] | None = None
    status: str = ""

    def shown(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"id": self.image_id, "status": self.status, "sha256": self.sha256}
        if self.problem is not None:
            answer["problem"] = self.problem
        return answer


def add_images(
    core: Core,
    name: str,
    uploads: Sequence[Upload],
    parameters: AddParameters,
    request: Request | None,
    within: Within | None = None,
) -> tuple[Answer, bool]:
    """The answer to a POST of images, and whether it was given before under the same Idempotency-Key.

    When it returns, every image that is not `refused` is committed with its vector and found by the next search.
    `within` may write more in the same transaction, and makes the answer then.
    """
    with core.idempotency.once(request) as answered:
        if answered is not None:
            return answered, True
        state = core.shelf.get(name)
        candidates = _candidates(core, uploads, parameters)
        runtime = _store_new(core, state, candidates)
        with stage("record"), core.database.write() as session:
            now = core.clock()
            sequence = next_sequence(session, state.id, now)
            versions = core.projections.versions(session, state.id)
            if versions.base_id != state.base_id:
                raise Conflict(
                    f"The embedding of `{name}` was changed by another request just now; send the images again.",
                    "embedding_changed",
                )
            repository_runtime = repository.runtime_id(session, runtime)
            vectors = _write(session, state, candidates, parameters, sequence, now)
            repository.store(session, versions, repository_runtime, vectors)
            answer = _answer(candidates, sequence)
            if within is not None:
                answer = within(session, answer.body, now)
            core.idempotency.remember(session, request, answer)
        core.shelf.follow(state)
        return answer, False


def _answer(candidates: Sequence[_Candidate], sequence: int) -> Answer:
    counts = {
        status: sum(one.status == status for one in candidates)
        for status in ("created", "updated", "duplicate", "refused")
    }
    body = {"items": [one.shown() for one in candidates], **counts, "sequence": sequence}
    return Answer(207 if counts["refused"] else 201, body)


def _candidates(core: Core, uploads: Sequence[Upload], parameters: AddParameters) -> list[_Candidate]:
    if not uploads:
        raise Invalid("Send at least one image: multipart `files`, one image/* body, or JSON `images`.", "no_images")
    items = parameters.items
    if items is not None and len(items) != len(uploads):
        raise Invalid(
            f"`items` must have one entry for each file; got {len(items)} for {len(uploads)} files.", "items_mismatch"
        )
    shared = parameters.model_dump(include={"role", "label", "group"}, exclude_unset=True)
    return [
        _candidate(core, upload, {**shared, **(items[place] if items else {}), **upload.item})
        for place, upload in enumerate(uploads)
    ]


def _candidate(core: Core, upload: Upload, given: dict[str, Any]) -> _Candidate:
    sha256 = hashlib.sha256(upload.data).hexdigest()
    try:
        item = Item.model_validate(given)
    except ValidationError as error:
        first = faults_of(error.errors())[0]
        fault = Invalid(f"`{first['where']}`: {first['what']}.", "item_invalid")
        shown_id = given["id"][:256] if isinstance(given.get("id"), str) else sha256
        return _Candidate(Item(), shown_id, sha256, b"", upload.filename, item_problem(fault))
    candidate = _Candidate(item, item.id or sha256, sha256, upload.data, upload.filename)
    try:
        refuse_large(_metadata(candidate), core.settings.json_limit_bytes)
    except TooLarge as error:
        candidate.problem = item_problem(error)
    return candidate


def _store_new(core: Core, state: CollectionState, candidates: Sequence[_Candidate]) -> dict[str, Any]:
    """Give every candidate whose bytes are not stored yet the network's vector, and make its bytes durable.

    Returns the runtime of these vectors.
    """
    embedder = core.embedders.of(state)
    good = _prepare_new(core, embedder.embedder, state, candidates)
    if good:
        # The disk is waited for while the network computes. Bytes that come to no row are collected later.
        with ThreadPoolExecutor(1, thread_name_prefix="store") as writer:
            stored = writer.submit(copy_context().run, _put, core, good)
            vectors = core.embedders.embed(embedder.network, [one.prepared for one in good if one.prepared is not None])
            stored.result()
        for one, vector in zip(good, vectors, strict=True):
            one.vector = vector
    return embedder.embedder.runtime.describe()


def _put(core: Core, candidates: Sequence[_Candidate]) -> None:
    with stage("store"):
        core.store.put((one.sha256, one.data) for one in candidates)


def _prepare_new(
    core: Core, embedder: Embedder, state: CollectionState, candidates: Sequence[_Candidate]
) -> list[_Candidate]:
    """The candidates whose bytes are not stored yet and can be decoded, ready for the network."""
    with state.lock.read():
        known = {
            one.image_id: state.entries[pk].sha256
            for one in candidates
            if (pk := state.entries.find(one.image_id)) is not None
        }
    sent: dict[str, set[str]] = {}
    for one in candidates:
        sent.setdefault(one.image_id, set()).add(one.sha256)
    # An id sent twice with different bytes needs both vectors: the first may replace what is stored.
    fresh = [
        one
        for one in candidates
        if one.problem is None and (known.get(one.image_id) != one.sha256 or len(sent[one.image_id]) > 1)
    ]
    images = [one.data for one in fresh]
    prepared = core.embedders.prepare(embedder, images) if fresh else []
    good: list[_Candidate] = []
    for one, image in zip(fresh, prepared, strict=True):
        if isinstance(image, ModelsError):
            one.problem = item_problem(image)
        else:
            one.prepared = image
            good.append(one)
    return good


def _write(
    session: Session,
    state: CollectionState,
    candidates: Sequence[_Candidate],
    parameters: AddParameters,
    sequence: int,
    now: datetime,
) -> list[tuple[ImageRow, NDArray[np.float32]]]:
    """Say what becomes of each candidate; the images that are to be stored, with the vectors of the network."""
    rows = repository.by_ids(session, state.id, {one.image_id for one in candidates if one.problem is None})
    vectors: dict[str, NDArray[np.float32]] = {}
    for one in candidates:
        if one.problem is not None:
            one.status = "refused"
            continue
        row = rows.get(one.image_id)
        same_bytes = row is not None and row.sha256 == one.sha256
        if row is not None and not same_bytes and parameters.mode == "insert_only":
            fault = Conflict(
                f"Image `{one.image_id}` exists with other bytes; send it with mode=upsert to replace it.",
                "image_exists",
            )
            one.problem, one.status = item_problem(fault), "refused"
        elif row is not None and same_bytes and row.id in state.damaged and one.vector is not None:
            _retell(row, one, sequence, now)
            row.sequence, row.updated_at = sequence, now
            one.status, vectors[one.image_id] = "updated", one.vector
        elif row is not None and same_bytes:
            one.status = "updated" if parameters.mode == "upsert" and _retell(row, one, sequence, now) else "duplicate"
        elif one.vector is None or one.prepared is None:
            # Stored when the request began, gone since: the caller must send it again.
            fault = Conflict(
                f"Image `{one.image_id}` was changed by another request just now; send it again.", "image_changed"
            )
            one.problem, one.status = item_problem(fault), "refused"
        else:
            one.status = "created" if row is None else "updated"
            rows[one.image_id] = _filled(row or _new(state, one, now), one, sequence, now)
            vectors[one.image_id] = one.vector
    return [(rows[image_id], vector) for image_id, vector in vectors.items()]


def _retell(row: ImageRow, one: _Candidate, sequence: int, now: datetime) -> bool:
    """Whether the same bytes came with new facts, which are then taken over. Facts not given stay."""
    changes = _said(one)
    if "metadata" in one.item.model_fields_set:
        changes["details"] = _metadata(one)
    changed = {name: value for name, value in changes.items() if getattr(row, name) != value}
    _take(row, changed)
    if changed:
        row.sequence, row.updated_at = sequence, now
    return bool(changed)


def _new(state: CollectionState, one: _Candidate, now: datetime) -> ImageRow:
    return ImageRow(collection_id=state.id, image_id=one.image_id, role="normal", created_at=now)


def _filled(row: ImageRow, one: _Candidate, sequence: int, now: datetime) -> ImageRow:
    assert one.prepared is not None
    _take(row, _said(one))
    row.sha256, row.pixel_sha256 = one.sha256, None  # a search for duplicates hashes the pixels where it needs to
    row.details = _metadata(one)
    row.format, row.width, row.height = one.prepared.format, one.prepared.width, one.prepared.height
    row.size_bytes = len(one.data)
    row.sequence, row.updated_at = sequence, now
    return row


def _take(row: ImageRow, facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if name == "role":
            repository.give_role(row, value)
        else:
            setattr(row, name, value)


def _said(one: _Candidate) -> dict[str, Any]:
    """Role, label and group as far as the caller gave them: what is not given stays as it is, so that sending an image
    again never makes a known defect normal."""
    return {name: getattr(one.item, name) for name in one.item.model_fields_set & {"role", "label", "group"}}


def _metadata(one: _Candidate) -> dict[str, Any]:
    metadata = dict(one.item.metadata or {})
    if one.filename:
        metadata.setdefault("filename", one.filename)
    return metadata


def show(row: ImageRow) -> dict[str, Any]:
    """An image as answers show it."""
    return {
        "id": row.image_id,
        "sha256": row.sha256,
        "pixel_sha256": row.pixel_sha256,
        "role": row.role,
        "label": row.label,
        "group": row.group,
        "metadata": row.details,
        "format": row.format,
        "width": row.width,
        "height": row.height,
        "bytes": row.size_bytes,
        "sequence": row.sequence,
        "created_at": shown(row.created_at),
        "updated_at": shown(row.updated_at),
    }


def list_images(
    core: Core, name: str, selection: Selection, after: int, limit: int, sequence: int | None = None
) -> tuple[list[dict[str, Any]], int | None]:
    """Images in order of arrival that fit the selection, and the row to go on after when there may be more.

    Fewer than `limit`, perhaps none, where few of many fit and the look at them takes its time.
    """
    state = core.shelf.get(name, sequence)
    chosen = parse_filter(selection.filter)
    found: list[dict[str, Any]] = []
    until = monotonic() + LOOK_S
    with core.database.read() as session:
        while True:
            rows = repository.page(
                session, state.id, after, MAX_LIMIT, role=selection.role, label=selection.label, group=selection.group
            )
            for row in rows:
                if _fits(chosen, row):
                    if len(found) == limit:
                        return found, after
                    found.append(show(row))
                after = row.id
            if len(rows) < MAX_LIMIT:
                return found, None
            if monotonic() > until:
                return found, after


def get_image(core: Core, name: str, image_id: str) -> dict[str, Any]:
    """The facts of one image. Raises NotFound."""
    return show(_row(core, name, image_id))


def get_content(core: Core, name: str, image_id: str) -> tuple[bytes, str, str]:
    """The bytes as they came, their media type and sha256."""
    row = _row(core, name, image_id)
    return core.store.get(row.sha256), f"image/{row.format.lower()}", row.sha256


def get_thumbnail(core: Core, name: str, image_id: str) -> tuple[bytes, str]:
    """A small copy (made at the first request and kept), and the sha256 of the original."""
    row = _row(core, name, image_id)
    data = core.thumbnails.get(row.sha256)
    if data is None:
        data = core.embedders.decoder.thumbnail(core.store.get(row.sha256))
        core.thumbnails.put(row.sha256, data)
    return data, row.sha256


def change_image(core: Core, name: str, image_id: str, change: ChangeParameters) -> dict[str, Any]:
    """The image after the change. A change of role moves it into or out of the bank at once."""
    state = core.shelf.get(name)
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        row = _require(session, state, image_id)
        if "role" in change.model_fields_set:
            if change.role is None:
                raise Invalid("`role` must be normal, anomalous, unlabelled or example; it cannot be null.")
            repository.give_role(row, change.role)
        for field in change.model_fields_set & {"label", "group"}:
            setattr(row, field, getattr(change, field))
        if "metadata" in change.model_fields_set:
            merged = _merged(row.details, change.metadata)
            refuse_large(merged, core.settings.json_limit_bytes)
            row.details = merged
        row.sequence, row.updated_at = sequence, now
        answer = show(row)
    core.shelf.follow(state)
    return answer


def delete_images(core: Core, name: str, selection: Selection) -> dict[str, Any]:
    """How many images were deleted, and which ids were not there. They are gone from every search at once."""
    state = core.shelf.get(name)
    chosen = parse_filter(selection.filter)
    if selection.ids is None and chosen.is_empty and not (selection.role or selection.label or selection.group):
        raise Invalid(
            "Say which images: `ids`, `filter`, `role`, `label` or `group`. To delete all, delete the collection.",
            "selection_missing",
        )
    with core.database.write() as session:
        sequence = next_sequence(session, state.id, core.clock())
        if selection.ids is not None:
            left, gone = set(selection.ids), []
            for row in repository.facts_of(session, state.id, selection.ids, *FACTS):
                left.discard(row.image_id)
                if _selected(selection, row) and _fits(chosen, row):
                    gone.append(row.id)
            missing = sorted(left)
            deleted = repository.remove(session, state.id, gone, sequence)
        else:
            missing = []
            equal = selection.model_dump(include={"role", "label", "group"})
            if chosen.is_empty:
                deleted = repository.remove_equal(session, state.id, sequence, **equal)
            else:
                rows = repository.facts(session, state.id, *FACTS, **equal)
                gone = [row.id for row in rows if _fits(chosen, row)]
                deleted = repository.remove(session, state.id, gone, sequence)
    core.shelf.follow(state)
    return {"deleted": deleted, "missing": missing, "sequence": sequence}


def delete_image(core: Core, name: str, image_id: str) -> int:
    """Delete one image: the sequence of the change. Raises NotFound."""
    state = core.shelf.get(name)
    with core.database.write() as session:
        sequence = next_sequence(session, state.id, core.clock())
        repository.remove(session, state.id, [_require(session, state, image_id).id], sequence)
    core.shelf.follow(state)
    return sequence


def _row(core: Core, name: str, image_id: str) -> ImageRow:
    state = core.shelf.get(name)
    with core.database.read() as session:
        return _require(session, state, image_id)


def _require(session: Session, state: CollectionState, image_id: str) -> ImageRow:
    row = repository.by_ids(session, state.id, [image_id]).get(image_id)
    if row is None:
        raise NotFound(f"Collection `{state.name}` has no image `{image_id}`.", "image_unknown")
    return row


def _fits(chosen: Filter, row: ImageRow | Row[Any]) -> bool:
    return chosen.accepts({"id": row.image_id, "role": row.role, "label": row.label, "group": row.group}, row.details)


def _selected(selection: Selection, row: Row[Any]) -> bool:
    wanted = {"role": selection.role, "label": selection.label, "group": selection.group}
    return all(value is None or getattr(row, name) == value for name, value in wanted.items())


def _merged(before: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396: null removes, objects merge, the rest replaces."""
    if not isinstance(patch, dict):
        return {} if patch is None else patch
    merged = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value) if isinstance(value, dict) else value
    return merged
